"""Gemini API, embedContent and batchEmbedContents (https://ai.google.dev/api/embeddings).

Only the newer models report tokens, gemini-embedding-2 among them. Never a stream, and no model in the response.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._gemini import model_path

FORMAT = Format(
    provider="gcp.gemini",
    api="embeddings",
    operation="embeddings",
    path=model_path("(?:embedContent|batchEmbedContents)"),
    usage={
        "input_tokens": (("usageMetadata.promptTokenCount",),),
        "total_tokens": (("usageMetadata.totalTokenCount",),),
    },
    response_model=("modelVersion",),
)
