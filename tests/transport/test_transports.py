from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy_data_plane.envoy.service.ext_proc.v3 import ExternalProcessorBase
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc import formats
from extproc.metrics import Metrics
from extproc.settings import Settings
from extproc.stream import Observer
from extproc.transport import SERVICE, Transport
from extproc.transport.fast import FastTransport
from extproc.transport.grpcio import GrpcioTransport
from tests.samples import total
from tests.waiting import until
from tests.wire.messages import CHAT, EVENTS, OK, body, headers, metadata_of, phase_of

Call = Any  # grpc.aio.StreamStreamCall[bytes, bytes]; grpcio ships no types

# By a server that stops: it depends on how far the client has seen it stop.
REFUSED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@dataclass
class Server:
    """Our transport, serving, and a client of it."""

    transport: Transport
    metrics: Metrics
    address: str
    channel: grpc.aio.Channel

    def process(self, **metadata: str) -> Call:
        """Open a stream as Envoy does; messages are bytes."""
        method = self.channel.stream_stream(f"/{SERVICE}/Process")
        return method(metadata=tuple((name.replace("_", "-"), value) for name, value in metadata.items()))

    @property
    def health(self) -> health_pb2_grpc.HealthStub:
        """A client of the health service."""
        return health_pb2_grpc.HealthStub(self.channel)

    def total(self, name: str, **labels: str) -> float | None:
        """Return what is counted under a name."""
        return total(self.metrics.exposition(), name, **labels)

    async def counted(self, name: str, value: float, **labels: str) -> None:
        """Wait until a counter has a value: the server sees the end of a stream when it sees it."""
        await until(lambda: self.total(name, **labels) == value)


Serving = Callable[..., AbstractAsyncContextManager[Server]]

TRANSPORTS: dict[str, Callable[[Observer], Transport]] = {"fast": FastTransport, "grpcio": GrpcioTransport}


@asynccontextmanager
async def _serving(kind: str, address: str = "127.0.0.1:0") -> AsyncIterator[Server]:
    metrics = Metrics()
    transport = TRANSPORTS[kind](Observer(Settings(), metrics, formats.find))
    address = await transport.start(address)
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Server(transport, metrics, address, channel)
    finally:
        await transport.stop(0, asyncio.Event())


@pytest.fixture(params=TRANSPORTS)
def serving(request: pytest.FixtureRequest) -> Serving:
    """Serve at an address by each transport."""
    return partial(_serving, request.param)


@pytest.fixture
async def server(serving: Serving) -> AsyncIterator[Server]:
    """Each transport on a free port."""
    async with serving() as server:
        yield server


def call(model: str, tokens: int) -> tuple[bytes, ...]:
    """Return the messages of a streamed call."""
    usage = (
        b'data: {"choices": [], "usage": {"prompt_tokens": %d, "completion_tokens": 1}}\n\ndata: [DONE]\n\n' % tokens
    )
    return (
        headers("request_headers", CHAT),
        body("request_body", b'{"model": "%s"}' % model.encode(), end=True),
        headers("response_headers", EVENTS),
        body("response_body", b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'),
        body("response_body", usage, end=True),
    )


async def ask(stream: Call, message: bytes) -> bytes:
    """Send a message; return the reply."""
    await stream.write(message)
    reply = await stream.read()
    assert isinstance(reply, bytes)
    return reply


async def talk(stream: Call, messages: Iterable[bytes]) -> list[bytes]:
    """Send each message when the one before it is answered, as Envoy does, and end the stream."""
    replies = [await ask(stream, message) for message in messages]
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    return replies


def test_method_name() -> None:
    """The service and its method are called what Envoy calls them."""
    assert list(ExternalProcessorBase().__mapping__()) == [f"/{SERVICE}/Process"]


async def test_many_exchanges_at_once(server: Server) -> None:
    """Streams on one connection are kept apart, each with its model and its counts; nothing is left of them."""
    count = 50
    calls = [call(f"model-{number}", number) for number in range(count)]
    conversations = await asyncio.gather(*(talk(server.process(), messages) for messages in calls))
    for number, replies in enumerate(conversations):
        assert [phase_of(reply) for reply in replies] == [
            "request_headers",
            "request_body",
            "response_headers",
            "response_body",
            "response_body",
        ]
        found = {key: value for reply in replies for key, value in metadata_of(reply).items()}
        assert (found["request_model"], found["request_prompt_tokens"]) == (f"model-{number}", number)
    assert server.total("asm_llm_proxy_requests", outcome="complete") == count
    assert server.total("asm_llm_proxy_prompt_tokens") == sum(range(count))
    await server.counted("extproc_streams_open", 0)


async def test_initial_metadata(server: Server) -> None:
    """GRPC initial metadata reaches the stream; values that are no text do no harm."""
    stream = server.channel.stream_stream(f"/{SERVICE}/Process")(
        metadata=(("x-llmproxy-source-workload", "sleep"), ("x-binary-bin", b"\xff\x00"))
    )
    await talk(stream, call("m", 1))
    assert server.total("asm_llm_proxy_requests", llmproxy_source_workload="sleep") == 1


async def test_replies_come_message_by_message(server: Server) -> None:
    """Envoy waits for each reply before it lets a message on: none waits for the next message."""
    stream = server.process()
    for message in call("m", 1):
        reply = await ask(stream, message)
        assert phase_of(reply)
    stream.cancel()


@pytest.mark.parametrize(
    ("sent", "outcome"), [(1, "aborted"), (2, "aborted"), (3, "aborted"), (4, "aborted"), (5, "complete")]
)
async def test_cancelled(server: Server, sent: int, outcome: str) -> None:
    """A stream that Envoy resets is counted once, and not left open."""
    stream = server.process()
    for message in call("m", 7)[:sent]:
        await ask(stream, message)
    stream.cancel()
    await server.counted("extproc_streams_open", 0)
    assert server.total("asm_llm_proxy_requests", outcome=outcome) == 1
    assert server.total("asm_llm_proxy_requests") == 1


async def test_connection_lost(server: Server) -> None:
    """An Envoy that goes away takes all of its streams with it; they are counted as aborted."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        streams: list[Call] = [channel.stream_stream(f"/{SERVICE}/Process")() for _ in range(5)]
        for stream in streams:
            await ask(stream, call("m", 1)[0])
        assert server.total("extproc_streams_open") == 5
    await server.counted("extproc_streams_open", 0)
    assert server.total("asm_llm_proxy_requests", outcome="aborted") == 5


async def test_half_closed(server: Server) -> None:
    """An Envoy that ends its side in the middle of an exchange gets an orderly end of ours."""
    await talk(server.process(), call("m", 1)[:2])
    assert server.total("asm_llm_proxy_requests", outcome="aborted") == 1


async def test_large_message(server: Server) -> None:
    """A chunk of 5 MiB, more than gRPC accepts by default, is one like any other."""
    asked = b'{"messages": [{"content": "%s"}], "model": "m"}' % (b"a" * 5 * 1024 * 1024)
    replies = await talk(server.process(), (headers("request_headers", CHAT), body("request_body", asked, end=True)))
    assert metadata_of(replies[1])["request_model"] == "m"


async def test_garbage(server: Server) -> None:
    """A message that is none is answered; the stream goes on."""
    stream = server.process()
    assert await ask(stream, b"garbage") == b""
    replies = await talk(stream, call("m", 3))
    assert metadata_of(replies[-1])["request_prompt_tokens"] == 3


async def test_no_replies_in_observability_mode(server: Server) -> None:
    """Where Envoy wants no replies, the stream carries none and ends in order."""
    stream = server.process()
    for message in call("m", 5):
        await stream.write(message + b"\x50\x01")  # observability_mode, as one more field of the message
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    assert server.total("asm_llm_proxy_prompt_tokens") == 5


@pytest.mark.parametrize(("service", "known"), [("", True), (SERVICE, True), ("other", False)])
async def test_health_check(server: Server, service: str, *, known: bool) -> None:
    """The server as a whole and its service are SERVING; others are not known."""
    request = health_pb2.HealthCheckRequest(service=service)
    if known:
        assert (await server.health.Check(request)).status == SERVING
        return
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await server.health.Check(request)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_health_watch(server: Server, service: str) -> None:
    """Who watches the health sees it change as soon as draining begins, and does not make it last."""
    watch = server.health.Watch(health_pb2.HealthCheckRequest(service=service))
    assert (await watch.read()).status == SERVING
    stream = server.process()
    await ask(stream, call("m", 1)[0])
    async with asyncio.TaskGroup() as group:
        group.create_task(server.transport.stop(1000, asyncio.Event()))
        assert (await watch.read()).status == NOT_SERVING
        await talk(stream, call("m", 1)[1:])


async def test_open_streams_finish(server: Server) -> None:
    """While draining, an open stream goes on to its end, and with it the draining; new ones are refused."""
    messages = call("m", 11)
    stream = server.process()
    await ask(stream, messages[0])
    watch = server.health.Watch(health_pb2.HealthCheckRequest())
    await watch.read()
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(server.transport.stop(1000, asyncio.Event()))
        assert (await watch.read()).status == NOT_SERVING
        assert await server.process().code() in REFUSED
        assert not stopping.done()
        replies = await talk(stream, messages[1:])
    assert metadata_of(replies[-1])["request_prompt_tokens"] == 11
    assert server.total("asm_llm_proxy_requests", outcome="complete") == 1
    assert server.total("extproc_streams_open") == 0


async def test_stuck_streams_are_ended(server: Server) -> None:
    """A stream that does not end within the drain time is ended, and counted."""
    stream = server.process()
    await ask(stream, call("m", 1)[0])
    await server.transport.stop(0.05, asyncio.Event())
    assert await stream.code() in REFUSED
    await server.counted("asm_llm_proxy_requests", 1, outcome="aborted")
    await server.counted("extproc_streams_open", 0)


@pytest.mark.parametrize("turns", range(5))
async def test_draining_cut_short(server: Server, turns: int) -> None:
    """Draining can be cut short, at any moment; open streams are ended then."""
    stream, hurry = server.process(), asyncio.Event()
    await ask(stream, call("m", 1)[0])
    async with asyncio.TaskGroup() as group:
        group.create_task(server.transport.stop(1000, hurry))
        for _ in range(turns):
            await asyncio.sleep(0)
        hurry.set()
    assert await stream.code() in REFUSED
    await server.counted("asm_llm_proxy_requests", 1, outcome="aborted")


async def test_no_task_is_left(serving: Serving) -> None:
    """When the server has stopped, none of its tasks goes on."""
    before = asyncio.all_tasks()
    async with serving() as server:
        await asyncio.gather(*(talk(server.process(), call("m", 1)) for _ in range(5)))
        stuck = server.process()
        await ask(stuck, call("m", 1)[0])
    await until(lambda: asyncio.all_tasks() == before)


async def test_unix_socket(serving: Serving, tmp_path: Path) -> None:
    """A unix socket is served like a port, and removed at the end."""
    path = tmp_path / "extproc.sock"
    async with serving(f"unix:{path}") as server:
        assert server.address == f"unix:{path}"
        assert path.is_socket()
        replies = await talk(server.process(), call("m", 2))
        assert metadata_of(replies[-1])["request_prompt_tokens"] == 2
    assert not path.exists()


async def test_unix_socket_left_by_a_crash(serving: Serving, tmp_path: Path) -> None:
    """A socket file that nobody listens on any more is in nobody's way."""
    path = tmp_path / "extproc.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
        crashed.listen()
    assert path.is_socket()
    async with serving(f"unix:{path}") as server:
        await talk(server.process(), call("m", 2))


async def refused(serving: Serving, address: str) -> str:
    """Try to serve where nobody can; return what is said."""
    with pytest.raises(OSError, match=r".") as error:
        async with serving(address):
            pass
    return error.value.strerror or str(error.value)


async def test_port_in_use(serving: Serving, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    """A port that somebody listens on is refused, with the reason, and with no other noise; they are not disturbed."""
    assert await refused(serving, server.address) == "Address already in use"
    assert capfd.readouterr() == ("", "")
    await talk(server.process(), call("m", 1))


async def test_unix_socket_in_use(serving: Serving, tmp_path: Path) -> None:
    """A unix socket that somebody listens on is not taken from them."""
    path = tmp_path / "extproc.sock"
    async with serving(f"unix:{path}") as server:
        assert await refused(serving, f"unix:{path}") == "Address already in use"
        await talk(server.process(), call("m", 1))


async def test_unix_socket_where_a_file_is(serving: Serving, tmp_path: Path) -> None:
    """A file that is no socket is left alone."""
    path = tmp_path / "notes.txt"
    path.write_text("important")
    assert await refused(serving, f"unix:{path}") == "Address already in use"
    assert path.read_text() == "important"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("unix:/nonexistent/folder/extproc.sock", "No such file or directory"),
        (f"unix:/tmp/{'a' * 200}", "too long"),
        ("192.0.2.1:0", "Cannot assign requested address|Can't assign requested address"),
    ],
)
async def test_nobody_can_listen_there(serving: Serving, address: str, reason: str) -> None:
    """An address that cannot be listened on is refused with the system's reason."""
    assert re.search(reason, await refused(serving, address))


async def test_trailing_messages_after_the_end(server: Server) -> None:
    """Messages after the response's end, as trailers may be, are answered and change no count."""
    stream = server.process()
    replies = await talk(stream, (*call("m", 4), headers("response_headers", OK), b""))
    assert len(replies) == 7
    assert server.total("asm_llm_proxy_requests") == 1
