"""A cheap client of ext_proc, as an Envoy is one: raw HTTP/2 frames on a connection, a stream for each exchange.

It sends what it is given and takes what comes, so it says nothing of a server's correctness. It opens all windows at
once, and expects the same of the server, as it waits for the reply to each message.
"""

from __future__ import annotations

import asyncio
from typing import cast

from extproc.demo.processes import Address
from extproc.transport import SERVICE
from extproc.transport.http2 import ErrorCode, frames
from extproc.transport.messages import pack_prefix

_PATH = f"/{SERVICE}/Process".encode()
# HPACK of literals and of the static table: RFC 7541, appendix A. POST and http; :path, :authority and content-type.
_HEADERS = b"".join(
    (
        b"\x83\x86",
        b"\x04" + bytes((len(_PATH),)) + _PATH,
        b"\x01\x07extproc",
        b"\x0f\x10\x10application/grpc",
        b"\x00\x02te\x08trailers",
    )
)


class LostError(Exception):
    """The server has ended a connection or a stream that was in use."""


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._next = 1
        self._rest = b""
        self._closed = asyncio.get_running_loop().create_future()

    @classmethod
    async def connected(cls, address: Address) -> Client:
        """Return a client of the server at this address."""
        _, client = await asyncio.get_running_loop().create_connection(cls, *address)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open all windows."""
        self._transport = cast(asyncio.Transport, transport)
        settings = frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW})
        window = frames.window_update(0, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW)
        self._transport.write(frames.PREFACE + settings + window)

    def data_received(self, data: bytes) -> None:
        """Let go on who waits for a reply."""
        data = self._rest + data
        position = 0
        while len(data) - position >= frames.HEADER_SIZE:
            upper, lower, kind, flags, number = frames.unpack_header(data, position)
            end = position + frames.HEADER_SIZE + (upper << 8 | lower)
            if end > len(data):
                break
            position = end
            waiting = self._waiting.get(number)
            if kind == frames.SETTINGS and not flags & frames.ACK:
                self._transport.write(frames.header(0, frames.SETTINGS, frames.ACK, 0))
            elif waiting is not None and not waiting.done():
                if kind == frames.DATA:
                    waiting.set_result(None)
                elif kind == frames.RST_STREAM or (kind == frames.HEADERS and flags & frames.END_STREAM):
                    waiting.set_exception(LostError("a stream was ended"))
        self._rest = data[position:]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base class's signature
        """Tell who waits."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(LostError("the connection was ended"))
        self._closed.set_result(None)

    def open(self) -> int:
        """Open a stream; return its number."""
        number, self._next = self._next, self._next + 2
        self._transport.write(frames.header(len(_HEADERS), frames.HEADERS, frames.END_HEADERS, number) + _HEADERS)
        return number

    async def ask(self, number: int, message: bytes) -> None:
        """Send a message on a stream; wait for the reply.

        Raises:
            LostError: there is none.
        """
        self._waiting[number] = waiting = asyncio.get_running_loop().create_future()
        data = pack_prefix(0, len(message)) + message
        for start in range(0, len(data), frames.DEFAULT_FRAME):
            piece = data[start : start + frames.DEFAULT_FRAME]
            self._transport.write(frames.header(len(piece), frames.DATA, 0, number) + piece)
        try:
            await waiting
        finally:
            del self._waiting[number]

    def end(self, number: int) -> None:
        """Send no more on a stream, as Envoy does when its own client goes in order."""
        self._transport.write(frames.header(0, frames.DATA, frames.END_STREAM, number))

    def reset(self, number: int) -> None:
        """Be done with a stream, as Envoy is when it has the last reply or has lost its client."""
        self._transport.write(frames.rst_stream(number, ErrorCode.CANCEL))

    async def close(self) -> None:
        """Close the connection."""
        self._transport.close()
        await self._closed
