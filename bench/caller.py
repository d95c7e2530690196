"""A client of the server on a bare socket, which can do what a library for gRPC would not."""

from __future__ import annotations

import asyncio
from typing import cast

from hpack import Encoder, NeverIndexedHeaderTuple

from extproc.demo.processes import Address
from extproc.transport import SERVICE
from extproc.transport.http2 import ErrorCode, frames
from extproc.transport.messages import pack_prefix

GREETING = (
    frames.PREFACE
    + frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW})
    + frames.window_update(0, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW)
)
"""What a client says first. It opens all windows, as far as they go."""

_REQUEST = {
    ":method": "POST",
    ":scheme": "http",
    ":path": f"/{SERVICE}/Process",
    ":authority": "extproc",
    "content-type": "application/grpc",
    "te": "trailers",
}
# The same for each stream of each connection: it refers to no dynamic table.
_BLOCK = Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in _REQUEST.items()])


class Caller(asyncio.Protocol):
    """A connection, with many calls at once."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._rest = b""
        self._next = 1  # stream
        self._lost = asyncio.get_running_loop().create_future()

    @classmethod
    async def connected(cls, address: Address) -> Caller:
        """Connect to a server."""
        _, caller = await asyncio.get_running_loop().create_connection(cls, *address)
        return caller

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(exc or ConnectionError("the server has closed the connection"))
        self._lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        data = self._rest + data
        position = 0
        while position + frames.HEADER_SIZE <= len(data):
            upper, lower, kind, flags, stream = frames.unpack_header(data, position)
            end = position + frames.HEADER_SIZE + (upper << 8 | lower)
            if end > len(data):
                break
            position = end
            is_last = kind in (frames.DATA, frames.HEADERS) and flags & frames.END_STREAM
            if (kind == frames.DATA or is_last) and (answer := self._answers.pop(stream, None)):
                answer.set_result(None)
        self._rest = data[position:]

    def say(self, data: bytes) -> None:
        """Send any bytes."""
        self._transport.write(data)

    def open(self) -> int:
        """Open a stream; return its number."""
        stream, self._next = self._next, self._next + 2
        self.say(frames.header(len(_BLOCK), frames.HEADERS, frames.END_HEADERS, stream) + _BLOCK)
        return stream

    async def ask(self, stream: int, message: bytes) -> None:
        """Send a message and wait for the reply.

        Raises:
            OSError: the connection was lost.
        """
        data = pack_prefix(0, len(message)) + message
        pieces = [data[at : at + frames.DEFAULT_FRAME] for at in range(0, len(data), frames.DEFAULT_FRAME)]
        await self._sent(stream, b"".join(frames.header(len(one), frames.DATA, 0, stream) + one for one in pieces))

    async def end(self, stream: int) -> None:
        """End a stream in order. Raises as `ask`."""
        await self._sent(stream, frames.header(0, frames.DATA, frames.END_STREAM, stream))

    def reset(self, stream: int) -> None:
        """End a stream at once."""
        self.say(frames.rst_stream(stream, ErrorCode.CANCEL))

    async def _sent(self, stream: int, data: bytes) -> None:
        self._answers[stream] = answer = asyncio.get_running_loop().create_future()
        self.say(data)
        await answer

    def leave(self) -> None:
        """Close the socket, whatever is open."""
        self._transport.abort()

    async def lost(self) -> None:
        """Wait for the end of the connection."""
        await asyncio.shield(self._lost)
