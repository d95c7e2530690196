"""envoy/envoy-tracing.yaml on a real Envoy, with a collector that takes its spans by OTLP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from extproc.demo.processes import Address, Envoy, Server, envoy, load
from extproc.formats import FORMATS
from tests.envoy.client import ask, connected, post, request
from tests.envoy.grpc_service import serving
from tests.envoy.message import SECONDS, Message, chunk, chunked, head
from tests.envoy.setting import FOLDER
from tests.envoy.upstream import Call, Script, Upstream, answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

FILE = FOLDER / "envoy-tracing.yaml"
STREAM = head("HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked")
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}
ASKED = {**CHAT, "gen_ai.request.model": "qwen-turbo"}
ANSWERED = {**ASKED, "gen_ai.response.model": "qwen-turbo-0919"}
WITH_TOKENS = {**ANSWERED, "gen_ai.usage.input_tokens": "11", "gen_ai.usage.output_tokens": "7"}

Ask = Callable[[Address, str], Awaitable[object]]


class Collector:
    """Takes spans."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._news = asyncio.Condition()

    async def export(self, data: bytes) -> bytes:
        """Be TraceService/Export."""
        async with self._news:
            for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                for scope in resource.scope_spans:
                    self._spans += scope.spans
            self._news.notify_all()
        return ExportTraceServiceResponse().SerializeToString()

    async def span(self, path: str) -> Span:
        """Return the span of the call to a path, as soon as it is there; tests use each path once."""

        def found() -> Span | None:
            return next((span for span in self._spans if attributes(span).get("http.url", "").endswith(path)), None)

        async with asyncio.timeout(SECONDS), self._news:
            span = await self._news.wait_for(found)
        assert span is not None
        return span


def attributes(span: Span) -> dict[str, str]:
    """Return the attributes of a span that are strings."""
    return {item.key: item.value.string_value for item in span.attributes if item.value.HasField("string_value")}


def told(span: Span) -> dict[str, str]:
    """Return what a span says of the model."""
    return {name: value for name, value in attributes(span).items() if name.startswith("gen_ai.")}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def collector() -> AsyncIterator[tuple[Collector, Address]]:
    """Run the collector; return it and its address."""
    collector = Collector()
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    async with serving(service, "Export", collector.export) as address:
        yield collector, address


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def traced(
    listening_upstream: Upstream, server: Server, collector: tuple[Collector, Address]
) -> AsyncIterator[Envoy]:
    """Envoy on envoy-tracing.yaml; it sends spans at once, not five together or after five seconds."""
    clusters = {"provider": listening_upstream.address, "extproc": server.address, "collector": collector[1]}
    at_once = {"name": "test", "static_layer": {"tracing.opentelemetry.min_flush_spans": 1}}
    async with envoy({**load(FILE, clusters), "layered_runtime": {"layers": [at_once]}}) as running:
        yield running


def event(**values: object) -> bytes:
    """Return an event of a stream, in a chunk of its own."""
    data = {"model": "qwen-turbo-0919", "choices": [{"delta": {"content": "Hel"}}], "usage": None, **values}
    return chunk(b"data: " + json.dumps(data).encode() + b"\n\n")


def whole(**values: object) -> bytes:
    """Return an answer in one piece."""
    body = json.dumps({"model": "qwen-turbo-0919", "choices": [], **values}).encode()
    return head("HTTP/1.1 200 OK", "content-type: application/json", f"content-length: {len(body)}") + body


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Return a usage as providers report it."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def question(address: Address, path: str) -> Message:
    """Make a call and read the answer."""
    return await ask(address, post(path, b'{"model": "qwen-turbo", "messages": []}'))


async def nameless_question(address: Address, path: str) -> Message:
    """Make a call that names no model."""
    return await ask(address, post(path, b'{"messages": []}'))


async def other_request(address: Address, path: str) -> Message:
    """Ask for something else than a model's answer."""
    return await ask(address, request(path, None, method="GET"), method="GET")


async def broken_off_question(address: Address, path: str) -> None:
    """Make a call, and go away when the answer has begun."""
    async with connected(address) as client:
        await client.send(post(path, b'{"model": "qwen-turbo", "messages": [], "stream": true}'))
        await client.response().until(lambda message: message.body)


async def unfinished(call: Call) -> None:
    """Begin to answer, and wait for the client to go."""
    await call.request.all()
    await call.send(STREAM, event())
    await call.gone()


@dataclass(frozen=True)
class Case:
    """What each end does, and what the span says."""

    script: Script
    told: dict[str, str]
    ask: Ask = question
    path: str = "chat/completions"


CASES = {
    "whole": Case(answer(whole(usage=usage(11, 7))), WITH_TOKENS),
    "streamed, tokens at the end": Case(
        answer(STREAM, event(), event(choices=[], usage=usage(11, 7)), chunked(b"data: [DONE]\n\n")), WITH_TOKENS
    ),
    "broken off": Case(unfinished, ANSWERED, broken_off_question),
    "without usage": Case(answer(whole()), ANSWERED),
    "refused": Case(answer(head("HTTP/1.1 429 Too Many Requests", "content-length: 0")), ASKED),
    "no model in the request": Case(
        answer(whole()), {**ANSWERED, "gen_ai.request.model": "qwen-turbo-0919"}, nameless_question
    ),
    "no token": Case(answer(whole(usage=usage(0, 0))), WITH_TOKENS | dict.fromkeys(list(WITH_TOKENS)[-2:], "0")),
    "all digits": Case(
        answer(whole(usage=usage(1_234_567, 98_765_432))),
        {**ANSWERED, "gen_ai.usage.input_tokens": "1234567", "gen_ai.usage.output_tokens": "98765432"},
    ),
    "other traffic": Case(answer(whole(usage=usage(11, 7))), {}, other_request, "models"),
    "other traffic by POST": Case(answer(whole(usage=usage(11, 7))), {}, path="files"),
}


@pytest.mark.parametrize("name", CASES)
async def test_the_span_says_what_is_known(
    name: str, traced: Envoy, collector: tuple[Collector, Address], upstream: Upstream
) -> None:
    """Model and tokens, as strings; what is not known has no attribute."""
    case = CASES[name]
    upstream.begin(case.script)
    path = f"/{name.replace(' ', '-').replace(',', '')}/v1/{case.path}"
    await case.ask(traced.addresses["outbound"], path)
    span = await collector[0].span(path)
    assert told(span) == case.told
    assert span.kind == Span.SPAN_KIND_CLIENT
    assert span.name == case.told.get("gen_ai.operation.name", "egress dashscope.aliyuncs.com")


async def test_every_api_has_its_operation() -> None:
    """The configuration knows OpenTelemetry's name of what each API does."""
    text = FILE.read_text(encoding="utf-8")
    assert [item.api for item in FORMATS if f"'{item.api}': '{item.operation}'" not in text] == []


async def test_a_trace_goes_on(traced: Envoy, collector: tuple[Collector, Address], upstream: Upstream) -> None:
    """The span belongs to the caller's trace; the provider gets the headers that the caller sent, and no others."""
    upstream.begin(answer(whole()))
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    sent = f"00-{trace}-{parent}-01"
    for path, headers in (("/traced/v1/chat/completions", [f"traceparent: {sent}"]), ("/new/v1/chat/completions", [])):
        await ask(traced.addresses["outbound"], post(path, b"{}", *headers))
        span = await collector[0].span(path)
        received = [value for name, value in upstream.requests[-1].headers if name == "traceparent"]
        assert received == [sent] * len(headers)
        assert (span.trace_id.hex() == trace, span.parent_span_id.hex() == parent) == (bool(headers), bool(headers))
