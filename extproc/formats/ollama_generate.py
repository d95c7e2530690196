"""Ollama's native completion (https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-completion)."""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._ollama import LAST, USAGE, path

FORMAT = Format(
    provider="ollama",
    api="generate",
    operation="text_completion",
    path=path("generate"),
    usage=USAGE,
    content=("response", "thinking"),
    last=LAST,
    lines=True,
)
