"""Vendors' SDKs call through Envoy: what an SDK's objects say was used is what is logged and counted.

Neither side is ours. The upstream replays what the vendors answered (tests/transcripts), cut at odd places; the SDK
reads it with the vendor's own code. What is expected is taken from the SDK's objects, not from facts.json.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.real import sdks
from tests.real.replay import TRANSCRIPTS, Recorded, Seen, Setting, read, replaying, running
from tests.real.sdks import Call

# One loop for the processes and the tests: it also reads what the processes write.
in_one_loop = pytest.mark.asyncio(loop_scope="module")

# Recordings keep the models of their time; the SDK says so.
pytestmark = pytest.mark.filterwarnings("ignore:The model '.*' is deprecated:DeprecationWarning")

# Nothing here may reach for the network or for what the machine knows: what looks for either finds a closed port.
OFFLINE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "OTEL_SDK_DISABLED": "true",
}
# Settings of SDKs that the machine may have.
OF_SDKS = re.compile(
    r"(?:OPENAI|AZURE|ANTHROPIC|CLOUD_ML|GOOGLE|GEMINI|CO_API|COHERE|MISTRAL|OLLAMA|AWS|DASHSCOPE|OTEL)_.*|.*_PROXY",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Row:
    """One way to call, and the answers it may get."""

    call: Call
    format: str
    """The folder of the transcripts."""
    endpoint: str = ".*"
    """Regular expression: of these only the answers of the endpoint that the SDK calls."""
    but: str = ""
    """A recording that is left out."""

    @property
    def answers(self) -> list[Recorded]:
        """The recordings of good answers."""
        streamed = self.call.__name__.endswith("_streamed")
        found = [read(folder) for folder in sorted((TRANSCRIPTS / self.format).glob("*")) if folder.is_dir()]
        return [
            recorded
            for recorded in found
            if recorded.streamed == streamed
            and recorded.known["outcome"] == "complete"
            and re.fullmatch(self.endpoint, recorded.endpoint)
            and recorded.name != f"{self.format}/{self.but}"
        ]


ROWS = (
    Row(sdks.openai_chat, "openai_chat_completions"),
    Row(sdks.openai_chat_streamed, "openai_chat_completions"),
    Row(sdks.openai_completion, "openai_completions"),
    Row(sdks.openai_completion_streamed, "openai_completions"),
    Row(sdks.openai_embeddings, "openai_embeddings", ".*/v1/embeddings"),
    Row(sdks.openai_response, "openai_responses", ".*/responses"),
    Row(sdks.openai_response_streamed, "openai_responses", ".*/responses"),
    Row(sdks.openai_moderation, "openai_moderations"),
    Row(sdks.openai_image, "openai_images", ".*/images/generations"),
    Row(sdks.openai_image_streamed, "openai_images", ".*/images/generations"),
    Row(sdks.openai_transcription, "openai_audio_transcriptions"),
    Row(sdks.openai_transcription_streamed, "openai_audio_transcriptions"),
    Row(sdks.azure_chat, "azure_chat_completions"),
    Row(sdks.azure_chat_streamed, "azure_chat_completions"),
    Row(sdks.azure_embeddings, "azure_embeddings"),
    Row(sdks.anthropic_message, "anthropic_messages"),
    Row(sdks.anthropic_message_streamed, "anthropic_messages"),
    Row(sdks.anthropic_message_on_vertex, "gcp_vertex_ai_anthropic_messages"),
    Row(sdks.anthropic_message_on_vertex_streamed, "gcp_vertex_ai_anthropic_messages"),
    Row(sdks.anthropic_message_on_bedrock, "aws_bedrock_invoke", ".*/anthropic[^/]*/invoke"),
    Row(sdks.anthropic_message_on_bedrock_streamed, "aws_bedrock_invoke", ".*/anthropic[^/]*/invoke-with-.*"),
    Row(sdks.gemini, "gcp_gemini_generate_content"),
    Row(sdks.gemini_streamed, "gcp_gemini_generate_content", r".*\?alt=sse"),
    Row(sdks.gemini_embeddings, "gcp_gemini_embeddings", ".*:batchEmbedContents"),
    Row(sdks.vertex, "gcp_vertex_ai_generate_content", r"[^?]*"),
    Row(sdks.vertex_streamed, "gcp_vertex_ai_generate_content", r".*\?alt=sse"),
    Row(sdks.vertex_embeddings, "gcp_vertex_ai_embeddings"),
    Row(sdks.cohere_chat, "cohere_chat_v2"),
    Row(sdks.cohere_chat_streamed, "cohere_chat_v2"),
    Row(sdks.cohere_chat_v1, "cohere_chat"),
    Row(sdks.cohere_chat_v1_streamed, "cohere_chat"),
    Row(sdks.cohere_embeddings, "cohere_embed", ".*/v2/embed"),
    Row(sdks.cohere_rerank, "cohere_rerank", ".*/v2/rerank"),
    Row(sdks.mistral_chat, "openai_chat_completions", "api.mistral.ai/.*"),
    Row(sdks.mistral_chat_streamed, "openai_chat_completions", "api.mistral.ai/.*"),
    Row(sdks.mistral_embeddings, "openai_embeddings", "api.mistral.ai/.*"),
    Row(sdks.ollama_chat, "ollama_chat"),
    # The SDK drops the count of cached tokens.
    Row(sdks.ollama_chat_streamed, "ollama_chat", but="streamed_cached"),
    Row(sdks.ollama_generate, "ollama_generate"),
    Row(sdks.ollama_generate_streamed, "ollama_generate"),
    Row(sdks.ollama_embeddings, "ollama_embed", ".*/embed"),
    Row(sdks.bedrock_converse, "aws_bedrock_converse"),
    Row(sdks.bedrock_converse_streamed, "aws_bedrock_converse"),
    Row(sdks.bedrock_invoke, "aws_bedrock_invoke"),
    Row(sdks.bedrock_invoke_streamed, "aws_bedrock_invoke"),
    Row(sdks.dashscope_generation, "dashscope_generation", ".*/text-generation/generation"),
    Row(sdks.dashscope_generation_streamed, "dashscope_generation", ".*/text-generation/generation"),
    Row(sdks.dashscope_multimodal, "dashscope_generation", ".*/multimodal-generation/generation"),
    Row(sdks.dashscope_multimodal_streamed, "dashscope_generation", ".*/multimodal-generation/generation"),
    Row(sdks.dashscope_embeddings, "dashscope_embeddings", ".*/text-embedding/text-embedding"),
    Row(sdks.dashscope_rerank, "dashscope_rerank", ".*/text-rerank/text-rerank"),
    # A workflow that names no model and reports no counts: there is nothing to hold against each other.
    Row(sdks.dashscope_application, "dashscope_application", but="workflow_without_usage"),
    Row(sdks.dashscope_application_streamed, "dashscope_application"),
)

CASES = [
    pytest.param(row.call, recorded, id=f"{row.call.__name__}-{recorded.name}")
    for row in ROWS
    for recorded in row.answers
]


@pytest.fixture(scope="module", autouse=True)
def _offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in filter(OF_SDKS.fullmatch, tuple(os.environ)):
            patch.delenv(name)
        for name, value in OFFLINE.items():
            patch.setenv(name, value)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def everything() -> AsyncIterator[Setting]:
    """Start what runs."""
    async with running() as setting:
        yield setting


@pytest.fixture
def setting(everything: Setting) -> Iterator[Setting]:
    """Lend what runs to one test."""
    yield everything
    faults, everything.upstream.faults = everything.upstream.faults, []
    assert faults == []


async def _check(
    setting: Setting, call: Callable[[], Seen], outcome: str = "complete", usage: str | None = None
) -> dict[str, Any]:
    """Hold against what the SDK says of a call what everybody else says; return the line of the log."""
    before, number = await setting.counted(), len(setting.envoy.log)
    seen = await asyncio.to_thread(call)
    usage = usage or seen.usage
    line = await setting.envoy.log_line(number)
    facts = line["metadata"]
    assert line["response_code"] == 200
    assert line["request_model"] == seen.model
    assert line["request_prompt_tokens"] == seen.tokens.get("request_prompt_tokens")
    assert line["request_completion_tokens"] == seen.tokens.get("request_completion_tokens")
    assert line["usage"] == usage
    assert {name: value for name, value in facts.items() if name.endswith("_tokens")} == seen.tokens
    if seen.response_model:
        assert facts["response_model"] == seen.response_model
    assert await setting.counted() - before == seen.counts(outcome, usage)
    found: dict[str, Any] = line
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.call.__name__)
def test_every_call_has_an_answer(row: Row) -> None:
    """No row of the table is empty, as it would be if its transcripts were renamed."""
    assert row.answers


@in_one_loop
@pytest.mark.parametrize(("call", "recorded"), CASES)
async def test_what_the_sdk_says_was_used_is_logged_and_counted(
    setting: Setting, call: Call, recorded: Recorded
) -> None:
    """Model and tokens are the same in the SDK, in Envoy's log, its counters and ours."""
    setting.upstream.begin(replaying(recorded))
    line = await _check(setting, lambda: call(setting.url, recorded))
    for name in ("provider", "api", "streaming"):
        assert line["metadata"][name] == recorded.known[name]
    timed = "time_to_first_token_ms" in line["metadata"]
    assert timed == recorded.streamed


@in_one_loop
@pytest.mark.parametrize(
    ("call", "name", "last", "usage"),
    [
        (sdks.anthropic_message_left, "anthropic_messages/streamed", b"text_delta", "partial"),
        (sdks.ollama_chat_left, "ollama_chat/streamed", b"content", "missing"),
        (sdks.bedrock_converse_left, "aws_bedrock_converse/streamed", b"contentBlockDelta", "missing"),
    ],
)
async def test_stream_that_the_application_leaves(
    setting: Setting, call: Call, name: str, last: bytes, usage: str
) -> None:
    """A stream that the SDK closes early is counted once, as aborted, with the counts that the SDK has by then."""
    recorded = read(TRANSCRIPTS / name)
    sent = next(number for number, event in enumerate(recorded.events, start=1) if last in event)
    setting.upstream.begin(replaying(recorded, until=sent))
    line = await _check(setting, lambda: call(setting.url, recorded), "aborted", usage)
    assert line["response_flags"] == "DC"  # the client went away
