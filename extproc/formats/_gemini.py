"""What the APIs that answer with Gemini's GenerateContentResponse have in common.

The answer is in candidates, the counts in usageMetadata (https://ai.google.dev/api/generate-content#UsageMetadata).
A stream has them in every event, then as counts so far, or in the last one only; later ones may also be lower. Nothing
marks the end of a stream but the end of its body: the last event has a finishReason, but so had all of them for a while
(https://github.com/BerriAI/litellm/issues/2195), and who translates into this shape may put one in front
(https://github.com/router-for-me/CLIProxyAPI/issues/5651).
"""

from __future__ import annotations

from extproc.core.format import Places, Sum

OPERATION = "generate_content"

GENERATE = "(?:generateContent|streamGenerateContent)"
"""The methods that answer; countTokens and computeTokens only count."""

_PARTS = ("text", "functionCall", "inlineData", "fileData", "executableCode", "codeExecutionResult")
"""What a part may be (https://ai.google.dev/api/caching#Part); a thought is a text."""


def model_path(method: str) -> str:
    """Return the pattern of the Gemini API's path to a method of a model, behind any prefix but Vertex AI's."""
    return rf"(?!.*/publishers/)(?:/.*)?/(?:models|tunedModels|dynamic)/(?P<model>[^/]+):{method}"


def usage(within: str = "") -> dict[str, Sum]:
    """Return where the counts are; `within` is the place of the answer, with a dot, if it is wrapped."""
    places = {
        name: (f"{within}usageMetadata.{name}",)
        for name in (
            "promptTokenCount",
            "toolUsePromptTokenCount",
            "candidatesTokenCount",
            "thoughtsTokenCount",
            "totalTokenCount",
            "cachedContentTokenCount",
        )
    }
    return {
        # The prompt includes cached content, but not what tools brought in; totalTokenCount is the sum of these four.
        "input_tokens": (places["promptTokenCount"], places["toolUsePromptTokenCount"]),
        "output_tokens": (places["candidatesTokenCount"], places["thoughtsTokenCount"]),
        "total_tokens": (places["totalTokenCount"],),
        "cached_input_tokens": (places["cachedContentTokenCount"],),
        "reasoning_output_tokens": (places["thoughtsTokenCount"],),
    }


def content(within: str = "") -> Places:
    """Return where an event has content. A part without any of these is only a thought's signature."""
    return tuple(f"{within}candidates[].content.parts[].{part}" for part in _PARTS)


def finish(within: str = "") -> Places:
    """Return where an event says that its answer is over, or that there will be none."""
    return (f"{within}candidates[].finishReason", f"{within}promptFeedback.blockReason")
