"""What the server answers: never a change to the exchange, sometimes metadata.

Replies without metadata are encoded once, here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct

from extproc.wire.ext_proc_pb2 import ProcessingMode, ProcessingResponse, Unchanged

Metadata = Mapping[str, str | int | float | bool]
"""Flat: Envoy merges the keys of a namespace one by one, and no deeper."""

PHASES = (
    "request_headers",
    "request_body",
    "request_trailers",
    "response_headers",
    "response_body",
    "response_trailers",
)
"""The messages of an exchange, by the names that both directions of the protocol give them."""

_MODE = ProcessingMode
_IGNORE = _MODE(
    response_header_mode=_MODE.SKIP,
    request_body_mode=_MODE.NONE,
    response_body_mode=_MODE.NONE,
    request_trailer_mode=_MODE.SKIP,
    response_trailer_mode=_MODE.SKIP,
)
# Envoy drops Content-Length from headers if the body mode in force is STREAMED when it sends them to us. So a body's
# mode is turned on in reply to its own headers, and not before: docs/decisions/0001-transparency.md. An override always
# sets both body modes. Trailers are asked for because behind trailers a body has no other end.
_WATCH = {
    "request_headers": _MODE(
        request_body_mode=_MODE.STREAMED,
        response_body_mode=_MODE.NONE,
        request_trailer_mode=_MODE.SEND,
        response_trailer_mode=_MODE.SEND,
    ),
    "response_headers": _MODE(
        request_body_mode=_MODE.STREAMED,
        response_body_mode=_MODE.STREAMED,
        request_trailer_mode=_MODE.SEND,
        response_trailer_mode=_MODE.SEND,
    ),
}


def _unchanged(phase: str, mode: ProcessingMode | None = None) -> ProcessingResponse:
    response = ProcessingResponse(mode_override=mode)
    getattr(response, phase).CopyFrom(Unchanged())
    return response


UNCHANGED: Mapping[str, bytes] = {phase: _unchanged(phase).SerializeToString() for phase in PHASES}
"""By phase: go on."""

WATCH: Mapping[str, bytes] = {phase: _unchanged(phase, _WATCH.get(phase)).SerializeToString() for phase in PHASES}
"""By phase: go on, and show me the body that follows these headers, and its trailers."""

IGNORE: bytes = _unchanged("request_headers", _IGNORE).SerializeToString()
"""To a request's headers: go on, and show me no more of this exchange."""


# Metadata is written by hand: every call has some of its own, and the library takes a microsecond for each field of it.
# Field numbers are those of ProcessingResponse and google.protobuf.Struct; a tag is a number and, in three bits, a type
# (https://protobuf.dev/programming-guides/encoding/#structure).
_DYNAMIC_METADATA = b"\x42"
_FIELDS, _KEY, _VALUE = b"\x0a", b"\x0a", b"\x12"
_NUMBER, _STRING, _BOOL, _STRUCT = b"\x11", b"\x1a", b"\x20", b"\x2a"

number: Callable[[float], bytes] = Struct("<d").pack
"""Writes the end of an entry that `number_of` has begun."""


def with_metadata(reply: bytes, namespace: str, entries: bytes) -> bytes:
    """Return a reply that also sets metadata; Envoy keeps it if its configuration lists the namespace."""
    # Messages of one type, one after the other, are one message with the fields of both:
    # https://protobuf.dev/programming-guides/encoding/#last-one-wins
    value = _STRUCT + _length(len(entries)) + entries
    fields = _key(namespace) + _VALUE + _length(len(value)) + value
    struct = _FIELDS + _length(len(fields)) + fields
    return reply + _DYNAMIC_METADATA + _length(len(struct)) + struct


def encoded(metadata: Metadata) -> bytes:
    """Return the entries of a namespace; those of several calls, one after the other, are one namespace, too."""
    return b"".join(_entry(key, value) for key, value in metadata.items())


def _entry(key: str, value: str | float | bool) -> bytes:  # noqa: FBT001 - it is a value
    if isinstance(value, str):
        written = _field(_STRING, value.encode())
    elif isinstance(value, bool):
        written = _BOOL + bytes((value,))
    else:
        return number_of(key) + number(value)
    return _field(_FIELDS, _key(key) + _field(_VALUE, written))


def number_of(key: str) -> bytes:
    """Return the entry of a number up to the number itself, which `number` writes."""
    value = _VALUE + b"\x09" + _NUMBER
    return _FIELDS + _length(len(_key(key)) + len(value) + 8) + _key(key) + value


@lru_cache  # of the namespace and the names of the contract
def _key(key: str) -> bytes:
    return _field(_KEY, key.encode())


def _field(tag: bytes, payload: bytes) -> bytes:
    return tag + _length(len(payload)) + payload


def _length(size: int) -> bytes:
    """Return a varint."""
    if size <= 0x7F:  # noqa: PLR2004 - seven bits a byte
        return _BYTES[size]
    return _BYTES[size & 0x7F | 0x80] + _length(size >> 7)


_BYTES = [bytes((value,)) for value in range(256)]
