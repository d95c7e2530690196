"""When we are gone, stuck or mad, traffic flows on: byte by byte the same, and Envoy still logs it."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import grpc
import pytest
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.service.ext_proc import v3
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode

from extproc.demo.processes import Address, Envoy, Process, extproc_server
from extproc.wire.ext_proc_pb2 import ProcessingRequest
from extproc.wire.replies import UNCHANGED, encoded, with_metadata
from tests.envoy.cases import CHUNKED, SSE, Steps, seen
from tests.envoy.client import Client, ask, connected, post
from tests.envoy.grpc_service import Context, processing
from tests.envoy.message import Incoming, chunk, chunked, head
from tests.envoy.setting import facts, impatient, logged, ours, proxy
from tests.envoy.upstream import Upstream, answer
from tests.samples import total

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXCHANGES = ("json", "sse-event-by-event", "trailers", "20-mb-request-model-last", "20-mb-response", "get")

Replies = Callable[[str], Iterable[bytes]]


@asynccontextmanager
async def not_running() -> AsyncIterator[Address]:
    """Take a port and do not listen there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()


@asynccontextmanager
async def stopped() -> AsyncIterator[Address]:
    """Start our server, and let it move no more."""
    async with extproc_server() as server:
        send_signal(server.process, signal.SIGSTOP)
        yield server.address


@asynccontextmanager
async def silent() -> AsyncIterator[Address]:
    """Let connections be made, and read nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()


def talking(junk: bytes) -> Callable[[], AbstractAsyncContextManager[Address]]:
    """Say this to whoever connects."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(junk)
        writer.close()

    @asynccontextmanager
    async def running() -> AsyncIterator[Address]:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()
        finally:
            server.close()

    return running


def replying(replies: Replies) -> Callable[[], AbstractAsyncContextManager[Address]]:
    """Reply to each message with these bytes, by its phase."""

    async def process(_: object, context: Context) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            for reply in replies(ProcessingRequest.FromString(message).WhichOneof("request") or ""):
                await context.write(reply)

    return partial(processing, process)


async def fail_at_once(_: object, context: Context) -> None:
    """End the stream with an error."""
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")


async def end_at_once(_: object, _context: Context) -> None:
    """End the stream in order, without a reply."""


MUTATION = bytes(
    v3.ProcessingResponse(
        request_headers=v3.HeadersResponse(
            v3.CommonResponse(
                header_mutation=v3.HeaderMutation(
                    set_headers=[core.HeaderValueOption(header=core.HeaderValue(key="x-mad", raw_value=b"yes"))],
                    remove_headers=["content-type"],
                )
            )
        )
    )
)
IMMEDIATE = bytes(
    v3.ProcessingResponse(immediate_response=v3.ImmediateResponse(status=HttpStatus(code=StatusCode(403)), body=b"no"))
)
ALL_BUT = {phase: [reply for other, reply in UNCHANGED.items() if other != phase] for phase in UNCHANGED}

BROKEN: dict[str, Callable[[], AbstractAsyncContextManager[Address]]] = {
    "not-running": not_running,
    "stopped": stopped,
    "silent": silent,
    "junk": talking(bytes(range(256)) * 40),
    "another-protocol": talking(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
    "closes-at-once": talking(b""),
    "no-protobuf": replying(lambda _: [b"\xff not a message"]),
    "empty-replies": replying(lambda _: [b""]),
    "wrong-phase": replying(lambda phase: ALL_BUT[phase][:1]),
    "every-phase-at-once": replying(lambda phase: [UNCHANGED[phase], *ALL_BUT[phase]]),
    "an-answer-of-its-own": replying(lambda _: [IMMEDIATE]),
    "changed-headers": replying(lambda phase: [MUTATION if phase == "request_headers" else UNCHANGED[phase]]),
    "other-metadata": replying(lambda phase: [with_metadata(UNCHANGED[phase], "envoy.lb", encoded({"usage": "x"}))]),
    "fails-at-once": partial(processing, fail_at_once),
    "ends-at-once": partial(processing, end_at_once),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_exchanges_are_the_same_without_a_server(broken: str, plain: Envoy, upstream: Upstream) -> None:
    """Both ends see what they see without us; the log line is there, its fields null; no counter begins."""
    async with BROKEN[broken]() as address, proxy(upstream.address, address, impatient) as running:
        for name in EXCHANGES:
            path = f"/{broken}/{name}/v1/chat/completions"
            without = await seen(plain, upstream, name, path)
            assert await seen(running, upstream, name, path) == without
            assert facts(await logged(running, path)) == [None] * 4
        assert "asm_llm_proxy" not in await running.prometheus()


EVENTS = [
    b'data: {"model":"llama","choices":[{"delta":{"content":"a"}}],'
    b'"usage":{"prompt_tokens":46,"completion_tokens":%d}}\n\n' % number
    for number in range(6)
]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_stream_goes_on_when_the_server_does_not(how: signal.Signals, upstream: Upstream) -> None:
    """Killed or stopped in mid-stream: every event arrives, and the log line has what was known by then."""
    path = f"/{how.name}/v1/chat/completions"
    async with extproc_server() as server, proxy(upstream.address, server.address, impatient) as running:
        steps = Steps()
        upstream.begin(steps.script)
        async with connected(running.addresses["outbound"]) as client:
            response = await begin(client, steps, path)
            for number, event in enumerate(EVENTS):
                steps.send(chunk(event))
                await response.body(event)
                if number == 2:
                    send_signal(server.process, how)
            steps.send(chunked())
            steps.done()
            message = await response.all()
        assert message.end == "whole"
        assert bytes(message.body) == b"".join(EVENTS)
        # The first thing that Envoy learns of the end is a missing reply, to the event that was sent next.
        assert facts(await logged(running, path)) == ["llama", 46, 2, "partial"]


async def test_a_server_that_is_back_counts_again(upstream: Upstream) -> None:
    """After a kill calls flow on uncounted; once a server listens there again, new calls are counted."""
    call = post("/1/v1/chat/completions", b'{"model": "back"}')
    answered = (
        head("HTTP/1.1 200 OK", "content-length: 55") + b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4}}'
    )
    upstream.begin(answer(answered))
    async with extproc_server() as server, proxy(upstream.address, server.address) as running:
        envoy = running.addresses["outbound"]

        async def logged_facts(path: str) -> list[object]:
            assert (await ask(envoy, call.replace(b"/1/", path.encode()))).start == "200"
            return facts(await logged(running, f"{path}v1/chat/completions"))

        assert await logged_facts("/1/") == ["back", 3, 4, "reported"]
        send_signal(server.process, signal.SIGKILL)
        await server.process.process.wait()
        assert await logged_facts("/2/") == [None] * 4
        host, port = server.address
        async with extproc_server("--listen", f"{host}:{port}") as again:
            assert await logged_facts("/3/") == ["back", 3, 4, "reported"]
            assert total(await ours(again), "asm_llm_proxy_prompt_tokens", llmproxy_model="back") == 3
        assert total(await running.prometheus(), "envoy_asm_llm_proxy_prompt_tokens", llmproxy_model="back") == 6


async def begin(client: Client, steps: Steps, path: str) -> Incoming:
    """Ask for a stream; return the response when it has begun."""
    await client.send(post(path, b'{"model": "llama", "stream": true}'))
    steps.send(head("HTTP/1.1 200 OK", *SSE, CHUNKED))
    response = client.response()
    await response.head()
    return response


def send_signal(process: Process, number: signal.Signals) -> None:
    """Send a signal to a process that a test started."""
    process.process.send_signal(number)
