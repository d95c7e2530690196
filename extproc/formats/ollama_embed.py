"""Ollama's native embeddings (https://github.com/ollama/ollama/blob/main/docs/api.md#generate-embeddings).

Never a stream. The older `/api/embeddings`, which reports neither tokens nor a model, is left to OpenAI's format:
others have OpenAI's embeddings there.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._ollama import INPUT, path

FORMAT = Format(
    provider="ollama",
    api="embed",
    operation="embeddings",
    path=path("embed"),
    usage={"input_tokens": INPUT},
)
