"""Gemini API, interactions (https://ai.google.dev/api/interactions-api), with a model or an agent.

The answer is in steps. A stream (https://ai.google.dev/gemini-api/docs/interactions/streaming) has all counts so far
where an agent's step stops, beside those of the step alone, and the final ones in its last event. What has an id is not
asked anew.
"""

from __future__ import annotations

from extproc.core.format import Format, Places
from extproc.formats._gemini import OPERATION


def _count(name: str) -> Places:
    return (f"usage.total_{name}tokens", f"interaction.usage.total_{name}tokens")


FORMAT = Format(
    provider="gcp.gemini",
    api="interactions",
    operation=OPERATION,
    path=r"(?:/.*)?/v1(?:alpha|beta)?/interactions/?",
    usage={
        # As in generateContent: what tools brought in is apart from the input, and thoughts from the output.
        "input_tokens": (_count("input_"), _count("tool_use_")),
        "output_tokens": (_count("output_"), _count("thought_")),
        "total_tokens": (_count(""),),
        "cached_input_tokens": (_count("cached_"),),
        "reasoning_output_tokens": (_count("thought_"),),
    },
    request_model=("model", "agent"),
    response_model=("model", "interaction.model", "agent", "interaction.agent"),
    content=(
        "delta.text",
        "delta.content",  # the summary of a thought
        "delta.arguments",
        "delta.data",  # pictures, sound
        "step.name",  # the function that is called
    ),
    done=b"[DONE]",
    last=(("event_type", "interaction.completed"), ("event_type", "error")),
    failed=(("status", "failed"), ("interaction.status", "failed")),
)
