"""Vertex AI, embeddings: predict for text, embedContent and batchEmbedContents for the newer models.

https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api

predict has a prediction for each text, and in each the tokens of that text: they are added up. Other models have the
same method, so the name of the model must tell that it embeds; multimodalembedding does and reports no tokens.
"""

from __future__ import annotations

from extproc.core.format import Format

_EMBEDS = "embedContent|batchEmbedContents"

FORMAT = Format(
    provider="gcp.vertex_ai",
    api="embeddings",
    operation="embeddings",
    path=(
        r"(?:/.*)?/publishers/[^/]+/models/"
        rf"(?:(?=[^/]*?(?:embedding|-e5-))(?=[^/]+:predict$)|(?=[^/]+:(?:{_EMBEDS})$))"
        rf"(?P<model>[^/]+):(?:predict|{_EMBEDS})"
    ),
    usage={
        "input_tokens": (("predictions[].embeddings.statistics.token_count", "usageMetadata.promptTokenCount"),),
        "total_tokens": (("usageMetadata.totalTokenCount",),),
    },
    response_model=("modelVersion",),
)
