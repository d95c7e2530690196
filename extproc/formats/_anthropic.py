"""What the APIs in the shape of Anthropic's Messages have in common.

A stream begins with `message_start`, whose output count is a first one of a few tokens. `message_delta` brings
cumulative counts, which supersede those before; newer models repeat the input's there. `message_stop` ends it
(https://platform.claude.com/docs/en/build-with-claude/streaming).
"""

from __future__ import annotations

from extproc.core.format import Places, Sum


def _places(name: str) -> Places:
    """Return where a count is: in a whole answer and in `message_delta`, or in `message_start`."""
    return (f"usage.{name}", f"message.usage.{name}")


CACHE_CREATION = _places("cache_creation_input_tokens")
CACHE_READ = _places("cache_read_input_tokens")
INPUT = _places("input_tokens")
OUTPUT = _places("output_tokens")
THINKING = _places("output_tokens_details.thinking_tokens")

USAGE: dict[str, Sum] = {
    # input_tokens is what comes after the last cache breakpoint; all input is the sum of the three:
    # https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
    "input_tokens": (INPUT, CACHE_CREATION, CACHE_READ),
    "output_tokens": (OUTPUT,),
    "cached_input_tokens": (CACHE_READ,),
    "cache_creation_input_tokens": (CACHE_CREATION,),
    # output_tokens includes thinking: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
    "reasoning_output_tokens": (THINKING,),
}

RESPONSE_MODEL: Places = ("model", "message.model")

CONTENT: Places = (
    "delta.text",
    "delta.thinking",
    "delta.partial_json",
    "content_block.text",
    "content_block.thinking",
    "content_block.data",  # redacted thinking
    "content_block.name",  # a tool call
)

FINISH: Places = ("delta.stop_reason",)

LAST = (("type", "message_stop"),)
