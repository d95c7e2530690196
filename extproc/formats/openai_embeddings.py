"""OpenAI embeddings (https://platform.openai.com/docs/api-reference/embeddings): input tokens only, never a stream."""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._openai import USAGE, path

FORMAT = Format(
    provider="openai",
    api="embeddings",
    operation="embeddings",
    path=path("embeddings"),
    usage={name: USAGE[name] for name in ("input_tokens", "total_tokens")},
)
