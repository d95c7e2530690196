"""The fast transport's sockets: peers that do not read, do not speak, or come in great numbers."""

from __future__ import annotations

import asyncio
import re
import resource
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import grpc
import pytest
import uvloop
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from extproc import formats
from extproc.demo.processes import extproc_server
from extproc.metrics import Metrics
from extproc.settings import Settings
from extproc.stream import Observer
from extproc.transport import SERVICE, protocol
from extproc.transport.fast import FastTransport
from extproc.transport.http2 import Room
from extproc.transport.http2.room import MOST_HELD
from extproc.transport.rpc import Invocation
from tests.transport.http2.peer import PREFACE, REQUEST
from tests.waiting import until
from tests.wire.messages import CHAT, headers, phase_of

METHOD = f"/{SERVICE}/Process"
LARGEST_WINDOW = 2**31 - 1


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Serve in this process."""
    transport = FastTransport(Observer(Settings(), Metrics(), formats.find))
    yield await transport.start("127.0.0.1:0")
    await transport.stop(0, asyncio.Event())


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a server, with little room for what it sends."""
    host, _, port = address.rpartition(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)  # noqa: FBT003 - the name is the socket's
    await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
    return await asyncio.open_connection(sock=client)


def opened() -> bytes:
    """Return what a client says that opens all windows and a call."""
    block = Encoder().encode([(name, METHOD if name == ":path" else value) for name, value in REQUEST])
    start = (
        SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}),
        WindowUpdateFrame(0, window_increment=LARGEST_WINDOW - 65_535),
        HeadersFrame(1, block, flags=["END_HEADERS"]),
    )
    return PREFACE + b"".join(frame.serialize() for frame in start)


async def test_answers_that_nobody_reads(address: str) -> None:
    """Whoever opens all windows and reads nothing is not read any more, and others are served."""
    _, writer = await connect(address)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # typed as a write transport
    writer.write(opened())
    messages = b"\0\0\0\0\2\x12\0" * 2300  # request headers, each answered with more bytes than it has
    sending = asyncio.create_task(_flood(writer, DataFrame(1, messages).serialize()))
    async with grpc.aio.insecure_channel(address) as channel:
        while not await _stuck(sending, writer):
            call = channel.stream_stream(METHOD)()
            await call.write(headers("request_headers", CHAT))
            assert phase_of(await call.read()) == "request_headers"
            call.cancel()
    sending.cancel()
    writer.transport.abort()


async def _flood(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()


async def _stuck(sending: asyncio.Task[None], writer: asyncio.StreamWriter) -> bool:
    """Tell whether nothing has been taken for a while."""
    assert not sending.done()
    before = writer.transport.get_write_buffer_size()
    await asyncio.wait([sending], timeout=0.5)
    return 0 < before == writer.transport.get_write_buffer_size()


@pytest.mark.parametrize("said", [b"", PREFACE[:5], PREFACE, PREFACE + SettingsFrame().serialize()[:8]])
async def test_peers_that_do_not_begin(said: bytes, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not begin to speak HTTP/2 in time is sent away; whoever has begun may be silent."""
    monkeypatch.setattr(protocol, "BEGIN_SECONDS", 0.1)
    silent_reader, silent = await connect(address)
    silent.write(PREFACE + SettingsFrame().serialize())
    reader, writer = await connect(address)
    writer.write(said)
    async with asyncio.timeout(30):
        await reader.read()
        writer.close()
        silent.write(PingFrame(0, b"12345678").serialize())
        await silent_reader.readuntil(b"12345678")
    silent.close()


class Counts:
    """Answers messages that are not empty with how many were."""

    empty = 0

    def __init__(self, _: Invocation) -> None: ...

    def receive(self, message: bytes) -> bytes | None:
        """Count, or tell."""
        Counts.empty += not message
        return b"%d" % Counts.empty if message else None

    def end(self) -> bool:
        """Be over."""
        return True

    def close(self) -> None:
        """Take note of nothing."""


class Counting(FastTransport):
    """Serves this instead."""

    def __init__(self) -> None:
        super().__init__(Observer(Settings(), Metrics(), formats.find))
        self._methods = {METHOD: Counts}

    @property
    def room(self) -> Room:
        """What is left for all connections."""
        return self._connected.room


async def test_others_have_their_turn() -> None:
    """While one peer sends more small messages at once than can be taken at once, another is answered in between."""
    transport = Counting()
    address = await transport.start("127.0.0.1:0")
    _, flooding = await connect(address)
    flooding.write(opened())
    sending = asyncio.create_task(_flood(flooding, DataFrame(1, bytes(5)).serialize() * 20_000))
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(METHOD)()
        await call.write(b"?")
        before = int(await call.read())
        for _ in range(50):
            await call.write(b"?")
            after = int(await call.read())
            # A read of the flood brings up to 18,000 messages. It takes some turns of the loop to ask and to answer.
            assert after - before < 8_000
            before = after
        call.cancel()
    assert before > 20_000
    sending.cancel()
    flooding.transport.abort()
    await transport.stop(0, asyncio.Event())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_nothing_is_lost_between_turns(run: Callable[[Coroutine[None, None, None]], None]) -> None:
    """Of a peer that sends much at once and reads late, every message is taken, and every answer comes."""
    run(_late())


async def _late() -> None:
    Counts.empty = 0
    transport = Counting()
    reader, writer = await connect(await transport.start("127.0.0.1:0"))
    sent = [
        *[DataFrame(1, bytes(5)), DataFrame(1, b"\0\0\0\0\1?" * 20 + bytes(10))] * 1000,
        DataFrame(1, b"", flags=["END_STREAM"]),
    ]
    writer.write(opened() + b"".join(frame.serialize() for frame in sent))
    answers = 0
    async with asyncio.timeout(30):
        while True:
            frame, length = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
            await reader.readexactly(length)
            answers += isinstance(frame, DataFrame)
            if "END_STREAM" in frame.flags:
                break
    assert (answers, Counts.empty) == (20_000, 3000)
    writer.close()
    await transport.stop(0, asyncio.Event())


@pytest.mark.parametrize(("left", "goes_on"), [(MOST_HELD, True), (50_000, False)])
async def test_what_nobody_reads_is_counted(left: int, *, goes_on: bool) -> None:
    """Answers that wait for a peer that does not read are counted; where there is no room for them, it is let go."""
    transport = Counting()
    address = await transport.start("127.0.0.1:0")
    transport.room.left = left
    _, writer = await connect(address)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # typed as a write transport
    writer.write(opened())
    sending = asyncio.create_task(_flood(writer, DataFrame(1, b"\0\0\0\0\1?" * 2000).serialize()))
    if goes_on:
        await until(lambda: transport.room.left < left - 64 * 1024)
        assert not sending.done()
    else:
        await asyncio.wait([sending], timeout=30)
        assert isinstance(sending.exception(), ConnectionError)
    sending.cancel()
    writer.transport.abort()
    await until(lambda: transport.room.left == left)
    await transport.stop(0, asyncio.Event())


async def _served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Tell whether a connection is served, or told to be calm and closed."""
    pong, away = PingFrame(0, b"12345678", flags=["ACK"]).serialize(), b"\0\0\0\x0btoo many connections"
    writer.write(PREFACE + SettingsFrame().serialize() + PingFrame(0, b"12345678").serialize())
    said = b""
    async with asyncio.timeout(30):
        while not said.endswith((pong, away)):
            said += await reader.read(100)
        return said.endswith(pong) or await reader.read() != b""


async def test_too_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection beyond the limit is sent away and told why; when another ends, the next one is served."""
    monkeypatch.setattr(protocol, "MOST_CONNECTIONS", 2)
    transport = Counting()
    address = await transport.start("127.0.0.1:0")
    connections = [await connect(address) for _ in range(4)]
    assert [await _served(*each) for each in connections] == [True, True, False, False]
    connections[0][1].close()
    while not await _served(*(new := await connect(address))):
        connections.append(new)
    connections.append(new)
    for _, writer in connections:
        writer.close()
    await transport.stop(0, asyncio.Event())


@pytest.mark.parametrize(
    ("files", "most"), [(1024, 960), (50, 1), (10**6, protocol.MOST_CONNECTIONS), (-1, protocol.MOST_CONNECTIONS)]
)
def test_connections_and_open_files(files: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more connections are taken than there may be open files, but for some."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, -1))
    assert protocol.Connected(lambda: None).most == most


LOADS = {
    "connections": ("-n5000", "-c200", "-m5"),
    "streams": ("-n8000", "-c2", "-m4000"),
    "windows of a byte": ("-n500", "-c20", "-m2", "-w1", "-W1"),
}


@pytest.mark.skipif(shutil.which("h2load") is None, reason="needs h2load, of nghttp2")
@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
async def test_h2load(load: tuple[str, ...], tmp_path: Path) -> None:
    """Each of so many calls at once is answered, and the server has nothing to say about it."""
    messages = tmp_path / "messages"
    messages.write_bytes(b"\0\0\0\0\2\x12\0" * 3)
    async with extproc_server("--transport", "fast") as server:
        host, port = server.address
        process = await asyncio.create_subprocess_exec(
            *("h2load", *load, f"-d{messages}", "-Hcontent-type: application/grpc", "-Hte: trailers"),
            f"http://{host}:{port}{METHOD}",
            stdout=asyncio.subprocess.PIPE,
        )
        output = (await process.communicate())[0].decode()
        count = load[0].removeprefix("-n")
        assert re.search(rf"requests: {count} total.* {count} succeeded, 0 failed, 0 errored, 0 timeout", output), (
            output
        )
        assert len(server.process.stderr) == 1
