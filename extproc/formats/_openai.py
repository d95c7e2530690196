"""What the APIs in OpenAI's shape have in common."""

from __future__ import annotations

from extproc.core.format import Sum

USAGE: dict[str, Sum] = {
    "input_tokens": (("usage.prompt_tokens",),),
    "output_tokens": (("usage.completion_tokens",),),
    "total_tokens": (("usage.total_tokens",),),
    # prompt_tokens includes the cached ones and completion_tokens the reasoning:
    # https://platform.openai.com/docs/guides/prompt-caching, https://platform.openai.com/docs/guides/reasoning
    "cached_input_tokens": (("usage.prompt_tokens_details.cached_tokens",),),
    "cache_creation_input_tokens": (("usage.prompt_tokens_details.cache_write_tokens",),),
    "reasoning_output_tokens": (("usage.completion_tokens_details.reasoning_tokens",),),
}

# Usage in a chunk that still has choices is a running count: vLLM's continuous_usage_stats. The final one has none:
# https://platform.openai.com/docs/api-reference/chat/create#chat-create-stream_options
# Or it comes in the chunk that ends the answer (DeepSeek, Mistral), or after it, with an empty choice (LiteLLM).
RUNNING = "choices[]"
FINISH = ("choices[].finish_reason",)

DONE = b"[DONE]"


def path(name: str) -> str:
    """Return the pattern of an endpoint behind any prefix: `/v1/`, DashScope's `/compatible-mode/v1/`, or none."""
    return rf"(?:/.*)?/{name}/?"
