"""What the server answers: never a change to the exchange, sometimes metadata.

Replies without metadata are encoded once, here.
"""

from __future__ import annotations

from collections.abc import Mapping

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


def with_metadata(reply: bytes, namespace: str, metadata: Metadata) -> bytes:
    """Return a reply that also sets `metadata`; Envoy keeps it if its configuration lists the namespace."""
    # Messages of one type, one after the other, are one message with the fields of both:
    # https://protobuf.dev/programming-guides/encoding/#last-one-wins
    return reply + encoded(namespace, metadata)


def encoded(namespace: str, metadata: Metadata) -> bytes:
    """Return what is added to a reply to set `metadata`."""
    response = ProcessingResponse()
    fields = response.dynamic_metadata.fields[namespace].struct_value.fields
    for key, value in metadata.items():
        if isinstance(value, str):
            fields[key].string_value = value
        elif isinstance(value, bool):
            fields[key].bool_value = value
        else:
            fields[key].number_value = value
    return response.SerializeToString()
