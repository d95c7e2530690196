"""One HTTP/2 stream, as the receiver of its request sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from extproc.transport.http2 import frames
from extproc.transport.http2.errors import ErrorCode

if TYPE_CHECKING:
    from extproc.transport.http2.connection import Connection
    from extproc.transport.http2.headers import Request

LONGEST_WAIT = 64 * 1024
"""Bytes of an answer that may wait for a peer that opens no window; whoever lets more come is reset."""

_WEIGHT = 2048  # what an open stream takes in memory, in bytes, beside its headers, its message and its answer


class Receiver(Protocol):
    """Takes a request and answers it on its stream."""

    def data(self, data: bytes, start: int, end: int) -> None:
        """Take the next bytes of the request's body: those of `data` from `start` to `end`."""

    def proceed(self) -> None:
        """Go on where `Stream.pause` was called."""

    def end(self) -> None:
        """Take note that the request is whole."""

    def lost(self) -> None:
        """Take note that the stream was reset, or the connection is gone, before the answer was whole."""

    def expired(self) -> None:
        """Take note that the time has come that `Stream.expire_at` was given."""


class _Nobody:
    """Receives what comes when all is over."""

    def data(self, data: bytes, start: int, end: int) -> None:
        """See Receiver."""

    def proceed(self) -> None:
        """See Receiver."""

    def end(self) -> None:
        """See Receiver."""

    def lost(self) -> None:
        """See Receiver."""

    def expired(self) -> None:
        """See Receiver."""


NOBODY: Receiver = _Nobody()
"""Receives for streams that are over: they let go of their receivers, so that no cycle keeps either in memory."""


class Stream:
    """Sends the answer to one request, within the windows that the peer has opened."""

    __slots__ = (
        "_connection",
        "_last",
        "_waiting",
        "due",
        "ended",
        "id",
        "owed",
        "receiver",
        "remote_ended",
        "spoke",
        "weight",
        "window",
    )

    def __init__(self, connection: Connection, number: int, window: int, request: Request) -> None:
        self._connection = connection
        self.id = number
        self.receiver = NOBODY
        self.window = window  # what the peer lets us send
        self.owed = 0  # bytes taken for which no window was given back
        self.due = request.length  # what is to come by Content-Length
        self.weight = _WEIGHT + request.size  # bytes that are held while it is open
        self.remote_ended = False
        self.ended = False  # nothing more may be sent
        self.spoke = False  # something was sent, or served without an answer
        self._waiting: bytearray | None = None  # what no window has been opened for
        self._last: bytes | None = None  # trailers that wait behind it

    def headers(self, block: bytes) -> None:
        """Send the answer's headers; `block` is HPACK that refers to no dynamic table."""
        connection = self._connection
        connection.out.append(frames.header(len(block), frames.HEADERS, frames.END_HEADERS, self.id) + block)

    def data(self, data: bytes) -> None:
        """Send bytes of the answer, or hold them until there is a window for them."""
        connection, size = self._connection, len(data)
        if self._waiting is None and size <= self.window and size <= connection.window and size <= connection.frame:
            self.spoke = True
            self.window -= size
            connection.window -= size
            connection.out.append(frames.pack_header(size >> 8, size & 0xFF, frames.DATA, 0, self.id) + data)
            return
        if self._waiting is None:
            self._waiting = bytearray()
        self._waiting += data
        has_room = connection.hold(size)
        self.pump()
        if self._waiting is not None and (len(self._waiting) > LONGEST_WAIT or not has_room):
            self.reset(ErrorCode.ENHANCE_YOUR_CALM)

    def end(self, block: bytes) -> None:
        """Send the answer's trailers, behind what waits; it is whole then. An empty block stands for no trailers."""
        if self._waiting is not None:
            self._last = block
        elif not self.ended:
            self.ended = True
            kind, flags = (frames.HEADERS, frames.END_HEADERS) if block else (frames.DATA, 0)
            self._connection.out.append(frames.header(len(block), kind, flags | frames.END_STREAM, self.id) + block)
            self._connection.answered(self)

    def reset(self, code: ErrorCode) -> None:
        """End the stream at once, both ways, whatever waits."""
        self._connection.reset(self, code)

    def hold(self, size: int) -> bool:
        """See `Connection.hold`."""
        return self._connection.hold(size)

    def pause(self) -> None:
        """Ask for `receiver.proceed()`, when others have had their turn and before anything more comes."""
        self._connection.pause(self)

    def expire_at(self, time: float) -> None:
        """Ask for `receiver.expired()` at a time of the connection's clock."""
        self._connection.expire_at(self, time)

    def pump(self) -> None:
        """Send what waits, as far as the windows go."""
        connection = self._connection
        while self._waiting is not None:
            size = min(len(self._waiting), self.window, connection.window, connection.frame)
            if size <= 0:
                if self.window > 0:
                    connection.waiting[self.id] = self
                return
            self.spoke = True
            self.window -= size
            connection.window -= size
            connection.hold(-size)
            connection.out.append(frames.header(size, frames.DATA, 0, self.id) + self._waiting[:size])
            del self._waiting[:size]
            if not self._waiting:
                self._waiting = None
                if self._last is not None:
                    self.end(self._last)

    def drop(self) -> None:
        """Let go of what waits."""
        if self._waiting is not None:
            self._connection.hold(-len(self._waiting))
            self._connection.waiting.pop(self.id, None)
            self._waiting = None
