"""Anthropic Messages (https://platform.claude.com/docs/en/api/messages).

Also as served by others in this shape behind a prefix, as by DashScope under `/apps/anthropic`
(https://help.aliyun.com/zh/model-studio/anthropic-api-messages). Token counting (`/v1/messages/count_tokens`) and
batches (`/v1/messages/batches`) answer with no usage of their own.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._anthropic import CONTENT, FINISH, LAST, RESPONSE_MODEL, USAGE

FORMAT = Format(
    provider="anthropic",
    api="messages",
    operation="chat",
    path=r"(?:/.*)?/v1/messages/?",
    usage=USAGE,
    response_model=RESPONSE_MODEL,
    content=CONTENT,
    finish=FINISH,
    last=LAST,
)
