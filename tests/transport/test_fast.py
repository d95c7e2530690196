"""The fast transport's sockets: peers that do not read, do not speak, or come in great numbers."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
import uvloop
from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from extproc import formats
from extproc.demo.processes import extproc_server
from extproc.metrics import Metrics
from extproc.settings import Settings
from extproc.stream import Observer
from extproc.transport import SERVICE, fast
from extproc.transport.fast import FastTransport
from tests.transport.http2.peer import PREFACE, REQUEST
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


async def test_answers_that_nobody_reads(address: str) -> None:
    """Whoever opens all windows and reads nothing is not read any more, and others are served."""
    _, writer = await connect(address)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # typed as a write transport
    block = Encoder().encode([(name, METHOD if name == ":path" else value) for name, value in REQUEST])
    messages = b"\0\0\0\0\2\x12\0" * 2300  # request headers, each answered with more bytes than it has
    start = (
        SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}),
        WindowUpdateFrame(0, window_increment=LARGEST_WINDOW - 65_535),
        HeadersFrame(1, block, flags=["END_HEADERS"]),
    )
    writer.write(PREFACE + b"".join(frame.serialize() for frame in start))
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
    monkeypatch.setattr(fast, "_PREFACE_SECONDS", 0.1)
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


async def test_too_many_connections(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection beyond the limit is told so and closed; those that are open go on, and leave room for others."""
    monkeypatch.setattr(fast, "MOST_CONNECTIONS", 2)
    hello = PREFACE + SettingsFrame().serialize()
    ping = PingFrame(0, b"12345678").serialize()
    peers = [await connect(address) for _ in range(2)]
    async with asyncio.timeout(30):
        for reader, writer in peers:
            writer.write(hello + ping)
            await reader.readuntil(b"12345678")
        reader, writer = await connect(address)
        assert b"too many connections" in await reader.read()
        writer.close()
        first_reader, first = peers.pop()
        first.close()
        await first_reader.read()
        (reader, writer) = peers[0]
        writer.write(ping)
        await reader.readuntil(b"12345678")
        writer.close()
        while True:
            reader, writer = await connect(address)
            writer.write(hello + ping)
            answer = await reader.readuntil(b"12345678") if not reader.at_eof() else b""
            writer.close()
            if b"12345678" in answer:
                break


def test_others_come_in_between() -> None:
    """Whoever sends more than is done in a moment waits for its next turn, and others have theirs."""
    served: list[str] = []
    uvloop.run(_two_at_once(served, many=40, one=1))
    assert (served.count("many"), served.count("one")) == (40 * 3000, 3000)
    assert served.index("one") < len(served) // 2


async def _two_at_once(served: list[str], **frames: int) -> None:
    """Let two clients send so many frames full of messages, all of which are there before the server reads any."""
    done = asyncio.Event()
    left = len(frames)

    def end() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    class Serving(FastTransport):
        def __init__(self) -> None:
            super().__init__(Observer(Settings(), Metrics(), formats.find))
            self._methods = {METHOD: lambda invocation: Named(invocation.metadata["x-name"], served, end)}

    server = Serving()
    host, _, port = (await server.start("127.0.0.1:0")).rpartition(":")
    with ExitStack() as clients:
        for name, number in frames.items():
            client = clients.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024 * 1024)
            client.connect((host, int(port)))
            fields = [(key, METHOD if key == ":path" else value) for key, value in (*REQUEST, ("x-name", name))]
            begin = (SettingsFrame(0), HeadersFrame(1, Encoder().encode(fields), flags=["END_HEADERS"]))
            data = DataFrame(1, b"\0\0\0\0\0" * 3000).serialize()
            end_of_call = DataFrame(1, flags=["END_STREAM"]).serialize()
            client.sendall(PREFACE + b"".join(frame.serialize() for frame in begin) + number * data + end_of_call)
        async with asyncio.timeout(30):
            await done.wait()
    await server.stop(0, asyncio.Event())


class Named:
    """Notes whose messages come; wants none answered."""

    def __init__(self, name: str, served: list[str], done: Callable[[], None]) -> None:
        self._name = name
        self._served = served
        self._done = done

    def receive(self, _message: bytes) -> None:
        """Note it."""
        self._served.append(self._name)

    def end(self) -> bool:
        """Be over."""
        self._done()
        return True

    def close(self) -> None:
        """Do nothing."""


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
