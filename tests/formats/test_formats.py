"""The table of formats."""

from __future__ import annotations

import pytest

from extproc import formats
from extproc.core.facts import Usage
from extproc.core.format import Format


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", "chat_completions"),
        ("/v1/chat/completions/", "chat_completions"),
        ("/chat/completions", "chat_completions"),
        ("/compatible-mode/v1/chat/completions", "chat_completions"),
        ("/openai/deployments/gpt/chat/completions", "chat_completions"),
        ("/v1/completions", "completions"),
        ("/serverless/v1/completions/", "completions"),
        ("/v1/embeddings", "embeddings"),
        ("/compatible-mode/v1/embeddings", "embeddings"),
        ("/embeddings", "embeddings"),
        ("/completions", "completions"),
        ("/my-chat/completions", "completions"),
        ("/api/chat", "chat"),
        ("/ollama/api/generate", "generate"),
        ("/api/embed", "embed"),
        ("/api/embeddings", "embeddings"),
        ("/api/tags", None),
        ("/generate", "generate"),
        ("/generate_stream", "generate"),
        ("/reports/generate", None),
        ("/v2/models/m/generate", None),
        ("/completion", "completion"),
        ("/infill", "completion"),
        ("/tokenize", None),
        ("/v1/chat/completions/chatcmpl-1", None),
        ("/openai/v1/chat/completions", "chat_completions"),
        ("//openai/deployments/gpt/chat/completions", "chat_completions"),
        ("/openai/deployments/gpt/chat/completions/chatcmpl-1", None),
        ("/openai/deployments/gpt", None),
        ("/v1/responses", "responses"),
        ("/openai/v1/responses/", "responses"),
        ("/openai/responses", "responses"),
        ("/v1/responses/compact", "responses"),
        ("/v1/responses/input_tokens", None),
        ("/v1/responses/resp_1", None),
        ("/v1/responses/resp_1/cancel", None),
        ("/v1/moderations", "moderations"),
        ("/v1/images/generations", "images"),
        ("/v1/images/edits", "images"),
        ("/v1/images/variations", "images"),
        ("/v1/images", None),
        ("/v1/audio/transcriptions", "audio_transcriptions"),
        ("/v1/audio/translations", "audio_translations"),
        ("/v1/audio/speech", "audio_speech"),
        ("/v1/audio/voices", None),
        ("/v1/messages", "messages"),
        ("/v1/messages/", "messages"),
        ("/apps/anthropic/v1/messages", "messages"),
        ("/v1/messages/count_tokens", None),
        ("/v1/messages/batches", None),
        ("/v1/complete", None),
        ("/v1/threads/thread_1/messages", None),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/m@1:rawPredict", "anthropic_messages"),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/m@1:streamRawPredict", "anthropic_messages"),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict", None),
        ("/model/anthropic.claude-v2/converse", "converse"),
        ("/bedrock/model/anthropic.claude-v2/converse-stream", "converse"),
        ("/model/arn:aws:bedrock:us-east-1:1:inference-profile/p/converse", "converse"),
        ("/model/anthropic.claude-v2/invoke", "invoke"),
        ("/model/anthropic.claude-v2/invoke-with-response-stream", "invoke"),
        ("/model/amazon.nova-sonic-v1%3A0/invoke-with-bidirectional-stream", None),
        ("/model/anthropic.claude-v2/count-tokens", None),
        ("/guardrail/g/version/1/apply", None),
        ("/async-invoke", None),
        ("/api/v1/services/aigc/text-generation/generation", "generation"),
        ("/gateway/api/v1/services/aigc/multimodal-generation/generation", "generation"),
        ("/api/v1/services/aigc/text2image/image-synthesis", None),
        ("/api/v1/services/embeddings/text-embedding/text-embedding", "embeddings"),
        ("/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding", "embeddings"),
        ("/api/v1/services/rerank/text-rerank/text-rerank", "rerank"),
        ("/compatible-api/v1/reranks", "rerank"),
        ("/api/v1/apps/5ccc140108fd4b2ea5e6101fbada7583/completion", "application"),
        ("/api/v1/tokenizer", None),
        ("/api/v1/tasks/86ecf553-d340-4e21-b5b1-a0c6a422c01c/cancel", None),
        ("/v1/chat", None),
        ("/v1/models", None),
        ("/v1/embeddingsandmore", None),
        ("/chat/completions-of-mine", None),
        ("/", None),
        ("", None),
    ],
)
def test_find(path: str, expected: str | None) -> None:
    """A path belongs to one API, with and without a prefix, or to none; only what is posted is a call."""
    found = formats.find("POST", path)
    assert (found.api if found else None) == expected
    assert formats.find("GET", path) is None


@pytest.mark.parametrize("prefix", ["", "/", "/gateway"])
@pytest.mark.parametrize(
    ("name", "api"),
    [
        ("chat/completions", "chat_completions"),
        ("completions", "completions"),
        ("embeddings", "embeddings"),
        ("images/generations", "images"),
        ("images/edits", "images"),
        ("audio/transcriptions", "audio_transcriptions"),
        ("audio/translations", "audio_translations"),
        ("audio/speech", "audio_speech"),
    ],
)
def test_deployments(prefix: str, name: str, api: str) -> None:
    """A deployment is Azure's, whatever OpenAI calls the API, and is the model that is asked."""
    path = f"{prefix}/openai/deployments/my%20gpt-4.1/{name}"
    [claiming] = [each for each in formats.FORMATS if each.claims("POST", path)]
    assert (claiming.provider, claiming.api) == ("azure", api)
    assert claiming.model_in_path(path) == "my gpt-4.1"
    without = formats.find("POST", f"/openai/v1/{name}")
    assert without is not None
    assert (without.provider, without.api, without.model_in_path(path)) == ("openai", api, None)


@pytest.mark.parametrize("each", formats.FORMATS, ids=lambda each: f"{each.provider}_{each.api}")
def test_usage(each: Format) -> None:
    """A format reports fields of `Usage`, and says where a model is; Cohere's responses name none."""
    assert each.usage.keys() <= set(Usage._fields)
    assert each.request_model
    assert each.response_model or each.provider == "cohere"
    assert "input_tokens" in each.usage


def test_names() -> None:
    """No two formats publish the same provider and API."""
    names = [(each.provider, each.api) for each in formats.FORMATS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "path", ["/v1" * 20_000, "/" * 60_000, "/chat/completions" * 3_000 + "x", "/openai/deployments" * 3_000]
)
def test_long_path(path: str) -> None:
    """A path of any length is looked at in no time worth speaking of: the time limit of the tests would end it."""
    assert formats.find("POST", path) is None
