"""Google's APIs: what tells them apart, and counts that no recorded answer has."""

from __future__ import annotations

import pytest

from extproc import formats
from extproc.formats import gcp_vertex_ai_embeddings
from tests.documents import usage_of

VERTEX = "/v1/projects/p/locations/us-central1"

GENERATE = ("gcp.gemini", "generate_content")
EMBED = ("gcp.gemini", "embeddings")
INTERACTIONS = ("gcp.gemini", "interactions")
VERTEX_GENERATE = ("gcp.vertex_ai", "generate_content")
VERTEX_EMBED = ("gcp.vertex_ai", "embeddings")
CODE_ASSIST = ("gcp.gen_ai", "generate_content")
OPENAI = ("openai", "chat_completions")


@pytest.mark.parametrize(
    ("path", "names", "model"),
    [
        ("/v1beta/models/gemini-2.5-flash:generateContent", GENERATE, "gemini-2.5-flash"),
        ("/v1/models/gemini-2.5-flash:streamGenerateContent", GENERATE, "gemini-2.5-flash"),
        ("/v1alpha/models/gemini%2D2.5-flash:generateContent", GENERATE, "gemini-2.5-flash"),
        ("/v1beta/tunedModels/my-model-1:generateContent", GENERATE, "my-model-1"),
        ("/v1beta/dynamic/chosen:generateContent", GENERATE, "chosen"),
        ("/gateway/gemini/v1beta/models/gemini-2.5-flash:generateContent", GENERATE, "gemini-2.5-flash"),
        ("/v1beta/models/gemini-embedding-001:embedContent", EMBED, "gemini-embedding-001"),
        ("/v1beta/models/gemini-embedding-001:batchEmbedContents", EMBED, "gemini-embedding-001"),
        (f"{VERTEX}/publishers/google/models/gemini-2.5-pro:generateContent", VERTEX_GENERATE, "gemini-2.5-pro"),
        (f"{VERTEX}/publishers/google/models/gemini-2.5-pro:streamGenerateContent", VERTEX_GENERATE, "gemini-2.5-pro"),
        ("/v1/publishers/google/models/gemini-2.5-pro:generateContent", VERTEX_GENERATE, "gemini-2.5-pro"),
        (f"{VERTEX}/endpoints/1234567890:generateContent", VERTEX_GENERATE, "1234567890"),
        (f"{VERTEX}/publishers/google/models/text-embedding-005:predict", VERTEX_EMBED, "text-embedding-005"),
        (f"{VERTEX}/publishers/google/models/textembedding-gecko@003:predict", VERTEX_EMBED, "textembedding-gecko@003"),
        (f"{VERTEX}/publishers/google/models/gemini-embedding-2:embedContent", VERTEX_EMBED, "gemini-embedding-2"),
        ("/v1beta/interactions", INTERACTIONS, None),
        ("/gateway/v1/interactions", INTERACTIONS, None),
        ("/v1beta/interactions/v1_1", None, None),
        ("/v1beta/interactions/v1_1/cancel", None, None),
        ("/interactions", None, None),
        ("/v1internal:generateContent", CODE_ASSIST, None),
        ("/v1internal:streamGenerateContent", CODE_ASSIST, None),
        ("/v1beta/openai/chat/completions", OPENAI, None),
        (f"{VERTEX}/endpoints/openapi/chat/completions", OPENAI, None),
        ("/v1beta/openai/embeddings", ("openai", "embeddings"), None),
        (f"{VERTEX}/publishers/google/models/imagen-4.0-generate-001:predict", None, None),
        (f"{VERTEX}/endpoints/1234567890:predict", None, None),
        ("/v1beta/models/imagen-4.0-generate-001:predict", None, None),
        ("/v1beta/models/gemini-2.5-flash:countTokens", None, None),
        (f"{VERTEX}/publishers/google/models/gemini-2.5-pro:countTokens", None, None),
        (f"{VERTEX}/publishers/google/models/text-embedding-005:computeTokens", None, None),
        ("/v1internal:countTokens", None, None),
        ("/v1beta/models/gemini-2.5-flash:batchGenerateContent", None, None),
        ("/v1beta/models/gemini-2.5-flash", None, None),
        ("/v1beta/models", None, None),
        ("/v1beta/cachedContents", None, None),
    ],
)
def test_paths(path: str, names: tuple[str, str] | None, model: str | None) -> None:
    """A path belongs to one API, with the model that it names; what only counts tokens is no call."""
    claiming = [each for each in formats.FORMATS if each.claims("POST", path, "example.test")]
    assert [(each.provider, each.api) for each in claiming] == ([names] if names else [])
    assert [each.model_in_path(path) for each in claiming] == ([model] if names else [])


def test_predictions() -> None:
    """The tokens of several texts are added up, also as floats; one without any is left out."""
    document = {
        "predictions": [
            {"embeddings": {"statistics": {"token_count": 3, "truncated": False}}},
            {"embeddings": {"statistics": {"token_count": 2048.0, "truncated": True}}},
            {"embeddings": {"values": []}},
        ]
    }
    assert usage_of(gcp_vertex_ai_embeddings.FORMAT, document).input_tokens == 2051
