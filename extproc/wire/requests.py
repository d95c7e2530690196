"""What Envoy sends, as plain values: the part of a message that is looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import DecodeError

from extproc.wire.ext_proc_pb2 import HeaderMap, ProcessingRequest

__all__ = ["DecodeError", "Message", "Read", "reader"]

# Envoy's key for attributes, whatever name the filter was given.
_ATTRIBUTES = "envoy.filters.http.ext_proc"

# Headers of calls by one client to one path are alike where Envoy forwards only those that are looked at.
_REMEMBERED = 1024
_SHORT = 512
_BODIES = frozenset(("request_body", "response_body"))
_HEADERS = frozenset(("request_headers", "response_headers"))
# A message begins with its part, and that with its tag: its number and three bits for its type.
_FIELDS = ProcessingRequest.DESCRIPTOR.fields_by_name
_BEGINNINGS = frozenset(bytes((_FIELDS[phase].number << 3 | 2,)) for phase in _HEADERS)

_decode = ProcessingRequest.FromString

_NOTHING: Mapping[str, str] = {}


class Message(NamedTuple):
    """One message; what it does not have is empty."""

    phase: str
    """Which of `PHASES` it belongs to; empty if it is none of them."""
    is_answered: bool
    """Whether Envoy wants a reply."""
    headers: Mapping[str, str] = _NOTHING
    """The wanted headers; several of one name are joined by commas."""
    body: bytes = b""
    end_of_stream: bool = False
    """Whether nothing follows in this direction, unless there are trailers."""
    attributes: Mapping[str, str] = _NOTHING
    """The wanted attributes that are strings."""


Read = Callable[[bytes], Message]
"""Reads a message.

Raises:
    DecodeError: it is no ProcessingRequest.
"""


def reader(headers: Collection[str], attributes: Collection[str]) -> Read:
    """Return what reads messages, of whose headers and attributes these are wanted."""

    def parse(data: bytes) -> Message:
        message = _decode(data)
        phase = message.WhichOneof("request") or ""
        is_answered = not message.observability_mode
        if phase in _BODIES:
            part = getattr(message, phase)
            return Message(phase, is_answered, _NOTHING, part.body, part.end_of_stream)
        if phase in _HEADERS:
            part = getattr(message, phase)
            found = _headers(part.headers, headers)
            return Message(phase, is_answered, found, b"", part.end_of_stream, _strings(message, attributes))
        return Message(phase, is_answered)

    remembered = lru_cache(_REMEMBERED)(parse)

    def read(data: bytes) -> Message:
        return remembered(data) if len(data) <= _SHORT and data[:1] in _BEGINNINGS else parse(data)

    return read


def _headers(headers: HeaderMap, wanted: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for header in headers.headers:
        name = header.key
        if name in wanted:
            # Values are bytes; what we look for is ASCII, and Latin-1 takes any byte.
            value = header.raw_value.decode("latin-1") or header.value
            # Several lines of one name are one list: RFC 9110, section 5.3.
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _strings(message: ProcessingRequest, wanted: Collection[str]) -> dict[str, str]:
    if _ATTRIBUTES not in message.attributes:
        return {}
    fields = message.attributes[_ATTRIBUTES].fields
    return {name: fields[name].string_value for name in wanted if name in fields}
