"""The official OpenAI SDK calls the LiteLLM proxy through Envoy: what the SDK says was used is what everybody counts.

Neither side is ours. What is expected is taken from the SDK's objects. LiteLLM mocks its answers itself, by
`mock_response` (https://docs.litellm.ai/docs/completion/mock_requests): a text, an embedding, an answer or an error.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, OpenAI
from openai.types import CompletionUsage
from openai.types.create_embedding_response import Usage as EmbeddingUsage

from extproc.demo.processes import Address, Envoy, Server, envoy, extproc_server, load, started
from tests.real.replay import counted

# One loop for the processes and the tests: it also reads what the processes write.
pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST = "dashscope.aliyuncs.com"
PREFIX = "/compatible-mode"  # before /v1 in DashScope's paths; LiteLLM also serves without it
CONFIGURATION = Path(__file__).parents[2] / "envoy" / "envoy.yaml"

QUESTION = "What is a service mesh, and who needs one?"
# Long enough for LiteLLM to compress it; it streams three characters at a time.
ANSWER = "A service mesh moves the calls between services, and sees them all. " * 12
# Seconds of work for LiteLLM: it is not done before a client that goes away at once. (It finishes all the same.)
LONG_ANSWER = "word " * 4_000

# What LiteLLM answers, by the model that clients ask for. It would send its provider another name, and does not tell.
MODELS: Mapping[str, Any] = {
    "qwen-turbo": ANSWER,
    "qwen-1.8b-chat": ANSWER,
    "qwen-long": LONG_ANSWER,
    "qwen-thinking": {
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}],
        "usage": {
            "prompt_tokens": 1210,
            "completion_tokens": 377,
            "total_tokens": 1587,
            "prompt_tokens_details": {"cached_tokens": 1024},
            "completion_tokens_details": {"reasoning_tokens": 192},
        },
    },
    "text-embedding-v1": [number / 512 for number in range(512)],
    "qwen-busy": "litellm.RateLimitError",
    "qwen-overloaded": "Exception: mock_streaming_error",
}

# Nothing here may reach for the network: LiteLLM uses the tables that it comes with, and reads no .env file. Should a
# release look for something else, it finds a closed port at once.
OFFLINE = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
}

# Whole answers LiteLLM compresses by itself, streams it does not: Envoy does, between LiteLLM and us.
COMPRESSOR = {
    "name": "envoy.filters.http.compressor",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
        "response_direction_config": {"common_config": {"content_type": ["text/event-stream"]}},
        "compressor_library": {
            "name": "gzip",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip"},
        },
    },
}


@dataclass(frozen=True)
class Seen:
    """What the SDK says of a call."""

    model: str
    usage: CompletionUsage | EmbeddingUsage | None = None
    outcome: str = "complete"
    status: int = 200

    @property
    def status_of_usage(self) -> str:
        """Under what `usage` such a call is counted."""
        return "reported" if self.usage else "missing"

    @property
    def tokens(self) -> dict[str, int]:
        """The counts, by the names of our metadata; only what is there."""
        if self.usage is None:
            return {}
        counts = {"request_prompt_tokens": self.usage.prompt_tokens, "request_total_tokens": self.usage.total_tokens}
        if isinstance(self.usage, CompletionUsage):
            counts["request_completion_tokens"] = self.usage.completion_tokens
            of_input, of_output = self.usage.prompt_tokens_details, self.usage.completion_tokens_details
            if of_input and of_input.cached_tokens is not None:
                counts["cached_prompt_tokens"] = of_input.cached_tokens
            if of_output and of_output.reasoning_tokens is not None:
                counts["reasoning_completion_tokens"] = of_output.reasoning_tokens
        return counts


@dataclass(frozen=True)
class Setting:
    """What runs."""

    key: str
    """Of LiteLLM."""
    server: Server
    envoy: Envoy

    def client_options(self, path: str) -> dict[str, Any]:
        """Return what all clients of the SDK are given."""
        host, port = self.envoy.addresses["outbound"]
        url = f"http://{host}:{port}{path}"
        return {"base_url": url, "api_key": self.key, "default_headers": {"Host": HOST}, "max_retries": 0}

    async def counted(self) -> Counter[tuple[str, ...]]:
        """Return all of Envoy's and our counters of calls, once no call is open any more."""
        return await counted(self.server, self.envoy)


@dataclass(frozen=True)
class Client:
    """The SDK's client, and the Content-Encoding of every response it got."""

    sdk: AsyncOpenAI
    encodings: list[str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def litellm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Address, str]]:
    """Run the LiteLLM proxy; give its address and its key."""
    configuration = tmp_path_factory.mktemp("litellm") / "config.yaml"
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/the-provider-s-{name}", "api_key": "none", "mock_response": answer},
        }
        for name, answer in MODELS.items()
    ]
    settings = {"num_retries": 0, "disable_cooldowns": True}
    configuration.write_text(json.dumps({"model_list": models, "router_settings": settings}))
    key = f"sk-{secrets.token_hex(32)}"
    command = [str(Path(sys.executable).with_name("litellm")), "--config", str(configuration)]
    command += ["--host", "127.0.0.1", "--port", "0"]
    environment = {**OFFLINE, "LITELLM_MASTER_KEY": key, "SERVER_ROOT_PATHS": PREFIX}
    async with started(command, environment) as process:
        line, number = "", 0
        while "Uvicorn running on" not in line:
            line = await process.line(process.stderr, number, seconds=90)
            number += 1
        url = next(word for word in line.split() if word.startswith("http://"))
        async with aiohttp.ClientSession() as session, session.get(f"{url}/health/readiness") as response:
            assert response.status == 200
        host, _, port = url.removeprefix("http://").rpartition(":")
        yield (host, int(port)), key
    # Its process group has gone with it: it left no child behind.
    with pytest.raises(ProcessLookupError):
        os.killpg(process.process.pid, 0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def setting(litellm: tuple[Address, str]) -> AsyncIterator[Setting]:
    """Run our server, and Envoy in front of LiteLLM; its access log also has all of our metadata."""
    address, key = litellm
    async with extproc_server() as server:
        configuration = load(CONFIGURATION, {"dashscope": address, "other": address, "extproc": server.address})
        listener = configuration["static_resources"]["listeners"][0]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["http_filters"].insert(-1, COMPRESSOR)
        log = manager["access_log"][0]["typed_config"]["log_format"]["json_format"]
        log["metadata"] = "%DYNAMIC_METADATA(asm.llmproxy)%"
        async with envoy(configuration) as proxy:
            yield Setting(key, server, proxy)


@pytest_asyncio.fixture(loop_scope="module")
async def client(setting: Setting) -> AsyncIterator[Client]:
    """Give a client of the SDK's that calls Envoy's listener."""
    encodings: list[str] = []

    async def note(response: httpx.Response) -> None:
        encodings.append(response.headers.get("content-encoding", "identity"))

    http_client = openai.DefaultAsyncHttpxClient(trust_env=False, event_hooks={"response": [note]})
    async with AsyncOpenAI(**setting.client_options(f"{PREFIX}/v1"), http_client=http_client) as sdk:
        yield Client(sdk, encodings)


async def _chat(sdk: AsyncOpenAI, model: str = "qwen-turbo") -> Seen:
    answer = await sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": QUESTION}])
    assert answer.choices[0].message.content == ANSWER
    return Seen(answer.model, answer.usage)


async def _chat_with_details(sdk: AsyncOpenAI) -> Seen:
    return await _chat(sdk, "qwen-thinking")


async def _chat_streamed(sdk: AsyncOpenAI) -> Seen:
    chunks = await sdk.chat.completions.create(
        model="qwen-1.8b-chat",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
    )
    *_, last = [chunk async for chunk in chunks]
    return Seen(last.model, last.usage)


async def _chat_streamed_without_usage(sdk: AsyncOpenAI) -> Seen:
    chunks = await sdk.chat.completions.create(
        model="qwen-turbo", messages=[{"role": "user", "content": QUESTION}], stream=True
    )
    *_, last = [chunk async for chunk in chunks]
    return Seen(last.model, last.usage)


async def _completion(sdk: AsyncOpenAI) -> Seen:
    answer = await sdk.completions.create(model="qwen-turbo", prompt=QUESTION)
    return Seen(answer.model, answer.usage)


async def _completion_streamed(sdk: AsyncOpenAI) -> Seen:
    chunks = await sdk.completions.create(
        model="qwen-turbo", prompt=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    *_, last = [chunk async for chunk in chunks]
    return Seen(last.model, last.usage)


async def _embeddings(sdk: AsyncOpenAI) -> Seen:
    answer = await sdk.embeddings.create(model="text-embedding-v1", input=[QUESTION])
    return Seen(answer.model, answer.usage)


Make = Callable[[AsyncOpenAI], Awaitable[Seen]]

REPORTING: tuple[Make, ...] = (
    _chat,
    _chat_with_details,
    _chat_streamed,
    _completion,
    _completion_streamed,
    _embeddings,
)
CALLS = (*REPORTING, _chat_streamed_without_usage)


def _counts(seen: Seen) -> Counter[tuple[str, ...]]:
    """Return by how much a call moves the counters of Envoy and of ours."""
    status = str(seen.status)
    counts = Counter(
        {
            ("envoy_llm_requests", seen.model, status): 1,
            ("asm_llm_proxy_requests", seen.model, seen.outcome, seen.status_of_usage, status): 1,
        }
    )
    for kind, tokens in seen.tokens.items():
        name = f"asm_llm_proxy_{kind.removeprefix('request_')}"
        if kind in {"request_prompt_tokens", "request_completion_tokens"}:
            counts[f"envoy_{name}", seen.model] += tokens
        if kind != "request_total_tokens":  # published, never counted
            counts[name, seen.model] += tokens
    return counts


async def _check(setting: Setting, make: Callable[[], Awaitable[Seen]]) -> dict[str, Any]:
    """Hold against what the SDK says of a call what everybody else says; return the line of the log."""
    before, number = await setting.counted(), len(setting.envoy.log)
    seen = await make()
    line = await setting.envoy.log_line(number)
    assert line["response_code"] == seen.status
    assert line["request_model"] == seen.model
    assert line["request_prompt_tokens"] == seen.tokens.get("request_prompt_tokens")
    assert line["request_completion_tokens"] == seen.tokens.get("request_completion_tokens")
    assert line["usage"] == seen.status_of_usage
    assert {name: value for name, value in line["metadata"].items() if name.endswith("_tokens")} == seen.tokens
    assert await setting.counted() - before == +_counts(seen)
    found: dict[str, Any] = line
    return found


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("call", REPORTING, ids=lambda call: call.__name__.strip("_"))
async def test_what_the_sdk_says_was_used_is_logged_and_counted(
    setting: Setting, client: Client, call: Make, encoding: str
) -> None:
    """Model and tokens are the same in the SDK, in Envoy's log, its counters and ours, compressed or not."""
    sdk = client.sdk.with_options(default_headers={"Accept-Encoding": encoding})

    async def make() -> Seen:
        seen = await call(sdk)
        assert seen.usage
        assert seen.usage.prompt_tokens > 0
        return seen

    line = await _check(setting, make)
    assert line["metadata"]["response_model"] == line["request_model"]
    assert client.encodings == [encoding]


async def test_stream_without_usage_counts_nothing(setting: Setting, client: Client) -> None:
    """A client that does not ask for usage is told none, and no count is made up for it."""

    async def make() -> Seen:
        seen = await _chat_streamed_without_usage(client.sdk)
        assert seen.usage is None
        return seen

    line = await _check(setting, make)
    assert line["metadata"]["streaming"]
    assert "time_to_first_token_ms" in line["metadata"]


async def test_the_blocking_client(setting: Setting) -> None:
    """The SDK's other client, with its own way to read streams, is counted alike; with the SDK's default headers."""

    def whole(sdk: OpenAI) -> Seen:
        answer = sdk.chat.completions.create(model="qwen-turbo", messages=[{"role": "user", "content": QUESTION}])
        return Seen(answer.model, answer.usage)

    def streamed(sdk: OpenAI) -> Seen:
        with sdk.chat.completions.stream(
            model="qwen-turbo",
            messages=[{"role": "user", "content": QUESTION}],
            stream_options={"include_usage": True},
        ) as stream:
            answer = stream.get_final_completion()
        assert answer.choices[0].message.content == ANSWER
        return Seen(answer.model, answer.usage)

    http_client = openai.DefaultHttpxClient(trust_env=False)
    with OpenAI(**setting.client_options("/v1"), http_client=http_client) as sdk:
        for call in (whole, streamed):

            async def make(call: Callable[[OpenAI], Seen] = call) -> Seen:
                seen = await asyncio.to_thread(call, sdk)
                assert seen.usage
                return seen

            await _check(setting, make)


async def test_calls_at_the_same_time(setting: Setting, client: Client) -> None:
    """Calls of all kinds that overlap are each counted for what they used."""
    before, number = await setting.counted(), len(setting.envoy.log)
    sdk = client.sdk
    all_seen = await asyncio.gather(*(call(sdk) for call in CALLS * 3))
    lines = [await setting.envoy.log_line(number + count) for count in range(len(all_seen))]
    expected: Counter[tuple[str, ...]] = Counter()
    for seen in all_seen:
        expected += _counts(seen)
    assert await setting.counted() - before == expected
    names = ("request_prompt_tokens", "request_completion_tokens")
    assert Counter((line["request_model"], *(line[name] for name in names)) for line in lines) == Counter(
        (seen.model, *(seen.tokens.get(name) for name in names)) for seen in all_seen
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("qwen-unheard-of", openai.BadRequestError),
        ("qwen-busy", openai.RateLimitError),
        ("qwen-overloaded", openai.InternalServerError),
    ],
)
async def test_error(
    setting: Setting, client: Client, model: str, error: type[openai.APIStatusError], *, stream: bool
) -> None:
    """A call that LiteLLM refuses is an error with its status, for the model that was asked for, without tokens."""

    async def make() -> Seen:
        with pytest.raises(error) as raised:
            await client.sdk.chat.completions.create(
                model=model, messages=[{"role": "user", "content": QUESTION}], stream=stream
            )
        return Seen(model, outcome="error", status=raised.value.status_code)

    await _check(setting, make)


async def test_client_goes_away(setting: Setting, client: Client) -> None:
    """A stream that the SDK closes early is counted once, as aborted, without tokens."""

    async def make() -> Seen:
        async with await client.sdk.chat.completions.create(
            model="qwen-long",
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            stream_options={"include_usage": True},
        ) as chunks:
            first = await anext(aiter(chunks))
            assert first.choices[0].delta.content
        return Seen(first.model, outcome="aborted")

    line = await _check(setting, make)
    assert line["response_flags"] == "DC"  # the client went away
