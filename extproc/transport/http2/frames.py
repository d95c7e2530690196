"""Frames as bytes: RFC 9113, sections 4 and 6."""

from __future__ import annotations

import struct
from typing import Final

from extproc.transport.http2.errors import ErrorCode

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Plain numbers, not an enum: each message compares them several times.
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

HEADER_SIZE: Final = 9
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME: Final = 16_384
LARGEST_FRAME: Final = 2**24 - 1
LARGEST_WINDOW: Final = 2**31 - 1
LARGEST_ID: Final = 2**31 - 1

# A length of 24 bits as 16 and 8 of them; type; flags; stream.
_HEADER = struct.Struct(">HBBBL")
_SETTING = struct.Struct(">HL")
_LONG = struct.Struct(">L")

unpack_header = _HEADER.unpack_from
"""Return the length's upper 16 bits and lower 8 bits, the type, the flags, and the stream with its reserved bit."""

pack_header = _HEADER.pack
"""Return a header, of the same."""


def header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """Return the header of a frame whose payload has `length` bytes."""
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream)


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join(_SETTING.pack(*item) for item in values.items())
    return header(len(payload), SETTINGS, 0, 0) + payload


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the settings of a SETTINGS frame, in their order."""
    return list(_SETTING.iter_unpack(payload))


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """Return a RST_STREAM frame."""
    return header(4, RST_STREAM, 0, stream) + _LONG.pack(code)


def window_update(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return header(4, WINDOW_UPDATE, 0, stream) + _LONG.pack(increment)


def ping(payload: bytes, flags: int = 0) -> bytes:
    """Return a PING frame with its eight bytes."""
    return header(8, PING, flags, 0) + payload


def goaway(last: int, code: ErrorCode, reason: str = "") -> bytes:
    """Return a GOAWAY frame; `last` is the highest stream that was or will be answered."""
    payload = _LONG.pack(last) + _LONG.pack(code) + reason.encode()
    return header(len(payload), GOAWAY, 0, 0) + payload


def read_long(payload: bytes) -> int:
    """Return the 31 bits of a stream, a dependency or an increment, without the reserved bit before them."""
    return int.from_bytes(payload[:4]) & LARGEST_ID


def without_padding(payload: bytes) -> bytes | None:
    """Return what a padded frame's payload holds; `None` if its padding is longer than itself."""
    if not payload or payload[0] >= len(payload):
        return None
    return payload[1 : len(payload) - payload[0]]
