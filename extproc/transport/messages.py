"""Bytes to gRPC messages, and back: a flag, a length of four bytes, and so many bytes.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import struct
from typing import Final

from extproc.transport.status import CallError, Code

LONGEST_MESSAGE = 64 * 1024 * 1024
"""Longest message taken, in bytes. Envoy sends bodies in chunks of up to its buffer limit, 1 MiB by default."""

PREFIX_SIZE: Final = 5

_PREFIX = struct.Struct(">BL")

pack_prefix = _PREFIX.pack
"""Return what comes before a message: of its flag, which is 0, and its length."""

unpack_prefix = _PREFIX.unpack_from
"""Return the flag, which is 0 if the message is not compressed, and the length that stand at a place in a buffer."""


class Partial:
    """Bytes of a call that are not just one whole message: some of one, or several."""

    __slots__ = ("_buffer", "_position")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0  # of what has not been taken

    def add(self, data: bytes, start: int, end: int) -> None:
        """Append those of `data` from `start` to `end`."""
        self._buffer += memoryview(data)[start:end]

    def next(self) -> bytes | None:
        """Take the next message; `None` if it is not whole.

        Raises:
            CallError: it cannot be taken.
        """
        buffer, start = self._buffer, self._position + PREFIX_SIZE
        if start > len(buffer):
            return None
        compressed, length = unpack_prefix(buffer, self._position)
        if compressed:
            # No encoding but identity was offered, so whichever it is: it is not known here.
            raise CallError(Code.UNIMPLEMENTED, "compressed messages are not supported")
        if length > LONGEST_MESSAGE:
            raise CallError(Code.RESOURCE_EXHAUSTED, f"a message of {length} bytes; at most {LONGEST_MESSAGE}")
        end = start + length
        if end > len(buffer):
            return None
        self._position = end
        return bytes(memoryview(buffer)[start:end])

    def trim(self) -> int:
        """Let go of what was taken; return how many bytes are left."""
        del self._buffer[: self._position]
        self._position = 0
        return len(self._buffer)
