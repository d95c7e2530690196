"""OpenAI responses (https://platform.openai.com/docs/api-reference/responses), and their compaction.

A stream (https://platform.openai.com/docs/api-reference/responses-streaming) ends with the event that repeats the whole
response, its model and its counts. What is posted to `/responses/input_tokens` is only counted, and what has an id is
not asked anew.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._openai import path, tokens

FORMAT = Format(
    provider="openai",
    api="responses",
    operation="chat",
    path=path("responses(?:/compact)?"),
    usage=tokens("usage", "response.usage"),
    response_model=("model", "response.model"),
    content=(
        "delta",  # of text, reasoning, refusal, sound, or a tool's arguments
        "item.name",  # the tool that is called
        "partial_image_b64",
    ),
    last=(
        ("type", "response.completed"),
        ("type", "response.incomplete"),
        ("type", "response.failed"),
        ("type", "error"),
    ),
    # The error event has no `error`, and no other event has a message of its own:
    # https://platform.openai.com/docs/api-reference/responses-streaming/error
    error=("error", "response.error", "message"),
)
