"""Ollama's native chat (https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion).

Its `/v1` endpoints are OpenAI's and Anthropic's, with their usage objects.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._ollama import LAST, USAGE, path

FORMAT = Format(
    provider="ollama",
    api="chat",
    operation="chat",
    path=path("chat"),
    usage=USAGE,
    content=("message.content", "message.thinking", "message.tool_calls"),
    last=LAST,
    lines=True,
)
