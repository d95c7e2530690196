"""Cohere's chat API, version 2 (https://docs.cohere.com/reference/chat).

A stream's counts are in its event `message-end` (https://docs.cohere.com/v2/docs/streaming), which is the last one:
recorded answers have `[DONE]` after it.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._cohere import PROVIDER, failed, usage

FORMAT = Format(
    provider=PROVIDER,
    api="chat_v2",
    operation="chat",
    path="(?:/.*)?/v2/chat/?",
    usage=usage("usage", "delta.usage"),
    response_model=(),
    content=(
        "delta.message.content.text",
        "delta.message.content.thinking",
        "delta.message.tool_plan",
        "delta.message.tool_calls",
    ),
    finish=("delta.finish_reason",),
    done=b"[DONE]",
    last=(("type", "message-end"),),
    error=("error", "delta.error"),
    failed=(*failed("finish_reason"), *failed("delta.finish_reason")),
)
