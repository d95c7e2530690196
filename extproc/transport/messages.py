"""gRPC's messages out of the bytes of a request, however they are cut.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Final

from extproc.core.pieces import Pieces
from extproc.transport.http2 import Room
from extproc.transport.http2.room import MOST_HELD as MOST_HELD_BY_ALL

LONGEST_MESSAGE = 64 * 1024 * 1024
"""Longest message taken, in bytes. Envoy sends bodies in chunks of up to its buffer limit, 1 MiB by default."""

MOST_HELD = 128 * 1024 * 1024
"""Bytes of messages that are not whole, of all calls on a connection; a call that asks for more fails."""

PREFIX: Final = 5
"""Bytes before each message: a flag and a length of four bytes."""

prefix = Struct(">BL")


class Code(IntEnum):
    """https://github.com/grpc/grpc/blob/master/doc/statuscodes.md."""

    OK = 0
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13


class CallError(Exception):
    """A call fails; the message tells the client why."""

    def __init__(self, code: Code, message: str, *also: bytes) -> None:
        super().__init__(message)
        self.code = code
        self.also = also
        """Headers to send with it, whose value is `identity`."""


class Held:
    """How many bytes of messages that are not whole the calls of a connection hold."""

    __slots__ = ("_room", "size")

    def __init__(self, room: Room) -> None:
        self.size = 0
        self._room = room

    def add(self, size: int) -> None:
        """Take so many bytes, or give them back if it is less than 0.

        Raises:
            CallError: there is no room for them; they are taken all the same.
        """
        self.size += size
        self._room.held += size
        if size > 0 and (self.size > MOST_HELD or self._room.held > MOST_HELD_BY_ALL):
            raise CallError(Code.RESOURCE_EXHAUSTED, "too many bytes of messages that are not whole")


class Assembly:
    """A message of a call that is on its way, and those that come in one piece with its end."""

    __slots__ = ("_held", "_missing", "_pieces", "_prefix")

    def __init__(self, held: Held) -> None:
        self._held = held
        self._prefix = b""  # what has come of it
        self._missing: int | None = None  # of the message, once its prefix is whole
        self._pieces = Pieces()

    @property
    def is_empty(self) -> bool:
        """Whether nothing of another message has come."""
        return not self._prefix and self._missing is None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that come to their end.

        Raises:
            CallError: one is compressed or too long, or too much is held.
        """
        position = 0
        while position < len(data) or self._missing == 0:
            if self._missing is None:
                position = self._read_prefix(data, position)
            elif len(data) - position < self._missing:
                self._keep(data[position:])
                return
            else:
                end = position + self._missing
                self._held.add(-self._pieces.size)
                self._pieces.add(data[position:end])
                self._prefix, self._missing, position = b"", None, end
                yield self._pieces.take()

    def drop(self) -> None:
        """Let go of what has come."""
        self._held.add(-self._pieces.size)
        self._prefix, self._missing, self._pieces = b"", None, Pieces()

    def _read_prefix(self, data: bytes, position: int) -> int:
        """Read up to the end of a prefix; return where reading goes on."""
        end = position + PREFIX - len(self._prefix)
        self._prefix += data[position:end]
        if len(self._prefix) == PREFIX:
            is_compressed, size = prefix.unpack(self._prefix)
            if is_compressed:
                # No encoding but identity was offered, so whichever it is: it is not known here.
                raise CallError(Code.UNIMPLEMENTED, "compressed messages are not supported", b"grpc-accept-encoding")
            if size > LONGEST_MESSAGE:
                raise CallError(Code.RESOURCE_EXHAUSTED, f"a message of {size} bytes; at most {LONGEST_MESSAGE}")
            self._missing = size
        return min(end, len(data))

    def _keep(self, piece: bytes) -> None:
        self._missing = (self._missing or 0) - len(piece)
        self._pieces.add(piece)
        self._held.add(len(piece))
