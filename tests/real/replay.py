"""What the SDKs talk to: an upstream that answers as the vendors did, Envoy before it, our server beside it."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from extproc.demo.processes import Envoy, Server, extproc_server
from tests.envoy.message import SECONDS, chunk, head
from tests.envoy.setting import Configuration, connection_manager, proxy
from tests.envoy.upstream import Call, Script, Upstream

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"

# The name of the only virtual host, which Envoy's counters have for a destination; ours have the client's Host.
VIRTUAL_HOST = "dashscope.aliyuncs.com"

# Said anew by the one who sends the body, or true only of the body as it was compressed.
_OF_THE_BODY = ("content-length", "transfer-encoding", "content-encoding", "connection", "trailer")

# What a counter of calls says of the caller and of the callee: the same for all calls here.
_WHO = (
    "llmproxy_source_workload",
    "llmproxy_source_workload_namespace",
    "llmproxy_destination_service",
    "source_workload",
    "destination_service",
)

_COUNTER_OF_CALLS = re.compile("(?:envoy_)?asm_llm_proxy_|envoy_llm_")

_IDLE = re.compile(r"^extproc_streams_open 0", re.MULTILINE)

_SSE_EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n|\r\r|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Recorded:
    """A vendor's answer, to what, and what kind it is."""

    name: str
    """Its folders: the format's and its own."""
    endpoint: str
    """The recorded request's host, path and query."""
    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    known: Mapping[str, Any]
    """Its facts.json. What must be logged and counted is not taken from here, but from the SDK."""

    @property
    def model(self) -> str:
        """The model that was asked for."""
        return str(self.known["request_model"])

    @property
    def streamed(self) -> bool:
        """Whether it is a stream of events."""
        return bool(self.known["streaming"])

    @property
    def events(self) -> list[bytes]:
        """The body of a stream as its events; of others, a few parts."""
        body = self.body
        if not self.streamed:
            third = len(body) // 3
            return [body[:third], body[third : 2 * third], body[2 * third :]]
        if "eventstream" in dict(self.headers).get("content-type", ""):
            return _frames(body)
        if body.startswith((b"{", b"[")):
            return body.splitlines(keepends=True)
        return [event for event in _SSE_EVENT.findall(body) if event]


def _frames(body: bytes) -> list[bytes]:
    """Cut an AWS event stream: each frame begins with its length."""
    frames = []
    while body:
        length = int.from_bytes(body[:4], "big")
        frames.append(body[:length])
        body = body[length:]
    return frames


@cache
def read(folder: Path) -> Recorded:
    """Read a transcript; head and body are parted by the first blank line."""
    request, _, _ = (folder / "request.http").read_bytes().partition(b"\n\n")
    response, _, body = (folder / "response.http").read_bytes().partition(b"\n\n")
    start, *lines = request.decode().splitlines()
    fields = dict(_field(line) for line in lines)
    target = start.split(" ")[1]
    status, *lines = response.decode().splitlines()
    return Recorded(
        name=f"{folder.parent.name}/{folder.name}",
        endpoint=f"{fields.get('host', '')}{target}",
        status=status.split(" ")[1],
        headers=tuple((name, value) for name, value in map(_field, lines) if name not in _OF_THE_BODY),
        body=body,
        known=json.loads((folder / "facts.json").read_bytes()),
    )


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def replaying(recorded: Recorded, *, until: int | None = None) -> Script:
    """Answer with a recorded response, cut within each event and between them; stop after `until` events and wait.

    It waits for the other side to go away, which it sees only if that closes the connection.
    """

    async def script(call: Call) -> None:
        await call.request.all()
        framing = "transfer-encoding: chunked" if recorded.streamed else f"content-length: {len(recorded.body)}"
        fields = (f"{name}: {value}" for name, value in recorded.headers)
        frame = chunk if recorded.streamed else bytes
        await call.send(head(f"HTTP/1.1 {recorded.status} OK", *fields, framing))
        for event in recorded.events[:until]:
            # A third: within a multi-byte character, a name, or a frame's head, as it comes.
            cut = len(event) // 3
            await call.send(*(frame(part) for part in (event[:cut], event[cut:]) if part))
        if until is not None:
            await call.gone()
        elif recorded.streamed:
            await call.send(b"0\r\n\r\n")

    return script


@dataclass(frozen=True)
class Seen:
    """What an SDK says of a call."""

    model: str
    """What it was told to ask for."""
    tokens: Mapping[str, int]
    """By the names of our metadata; only what was reported."""
    response_model: str | None = None
    """None if the SDK does not say."""

    @property
    def usage(self) -> str:
        """Under what `usage` the call is counted if it came to its end."""
        return "reported" if self.tokens else "missing"

    def counts(self, outcome: str, usage: str) -> Counter[tuple[str, ...]]:
        """Return by how much the call moves the counters of Envoy and of ours."""
        counts = Counter(
            {
                ("envoy_llm_requests", self.model, "200"): 1,
                ("asm_llm_proxy_requests", self.model, outcome, usage, "200"): 1,
            }
        )
        for kind, tokens in self.tokens.items():
            name = f"asm_llm_proxy_{kind.removeprefix('request_')}"
            if kind in {"request_prompt_tokens", "request_completion_tokens"}:
                counts[f"envoy_{name}", self.model] += tokens
            if kind != "request_total_tokens":  # published, never counted
                counts[name, self.model] += tokens
        return counts


def tokens(  # noqa: PLR0913 - the kinds of tokens there are
    prompt: float | None = None,
    completion: float | None = None,
    total: float | None = None,
    *,
    cached: float | None = None,
    cache_creation: float | None = None,
    reasoning: float | None = None,
) -> dict[str, int]:
    """Return counts by the names of our metadata, without those that are None; the total is the sum if not given."""
    if total is None and prompt is not None and completion is not None:
        total = prompt + completion
    counts = {
        "request_prompt_tokens": prompt,
        "request_completion_tokens": completion,
        "request_total_tokens": total,
        "cached_prompt_tokens": cached,
        "cache_creation_prompt_tokens": cache_creation,
        "reasoning_completion_tokens": reasoning,
    }
    return {name: int(number) for name, number in counts.items() if number is not None}


def added(*terms: float | None) -> float | None:
    """Add counts up; None if there is none."""
    reported = [term for term in terms if term is not None]
    return sum(reported) if reported else None


@dataclass(frozen=True)
class Setting:
    """What runs."""

    upstream: Upstream
    server: Server
    envoy: Envoy

    @property
    def url(self) -> str:
        """Where Envoy takes calls."""
        host, port = self.envoy.addresses["outbound"]
        return f"http://{host}:{port}"

    async def counted(self) -> Counter[tuple[str, ...]]:
        """Return all of Envoy's and our counters of calls, once no call is open any more."""
        return await counted(self.server, self.envoy)


async def counted(server: Server, envoy: Envoy) -> Counter[tuple[str, ...]]:
    """Return all of Envoy's and the server's counters of calls, once no call is open any more."""
    async with asyncio.timeout(SECONDS), aiohttp.ClientSession() as session:
        text = ""
        while not _IDLE.search(text):
            async with session.get(server.metrics_url) as response:
                text = await response.text()
    return _counters(text) + _counters(await envoy.prometheus())


def _counters(text: str) -> Counter[tuple[str, ...]]:
    """Return the counters of calls, by their names and the labels that say what was called."""
    # A small part of both texts.
    lines = [line for line in text.splitlines(keepends=True) if _COUNTER_OF_CALLS.match(line)]
    counters: Counter[tuple[str, ...]] = Counter()
    for family in text_string_to_metric_families("".join(lines)):
        for sample in family.samples:
            who = {name: value for name, value in sample.labels.items() if name in _WHO}
            assert set(who.values()) <= {"sleep", "default", VIRTUAL_HOST, "127.0.0.1", "api.cohere.com"}
            what = [
                sample.labels[name]
                for name in ("llmproxy_model", "model", "outcome", "usage", "response_code")
                if name in sample.labels
            ]
            counters[sample.name.removesuffix("_total"), *what] += int(sample.value)
    return counters


@asynccontextmanager
async def running() -> AsyncIterator[Setting]:
    """Run the upstream, our server, and Envoy; its access log also has all of our metadata."""

    def change(configuration: Configuration) -> None:
        manager = connection_manager(configuration)
        log = manager["access_log"][0]["typed_config"]["log_format"]["json_format"]
        log["metadata"] = "%DYNAMIC_METADATA(asm.llmproxy)%"
        # SDKs send Envoy's address as the Host.
        hosts = manager["route_config"]["virtual_hosts"]
        hosts[0]["domains"] = ["*"]
        del hosts[1:]

    async with (
        Upstream().listening() as upstream,
        extproc_server() as server,
        proxy(upstream.address, server.address, change) as envoy,
    ):
        yield Setting(upstream, server, envoy)
