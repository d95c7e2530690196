"""Messages as Envoy sends them, and what its answers say, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict

from extproc.wire.ext_proc_pb2 import (
    HeaderMap,
    HeaderValue,
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
)

NAMESPACE = "asm.llmproxy"

CHAT = {":method": "POST", ":path": "/v1/chat/completions", ":authority": "api.openai.com"}
OK = {":status": "200", "content-type": "application/json"}
EVENTS = {":status": "200", "content-type": "text/event-stream"}


def headers(
    phase: str, values: Mapping[str, str], *, end: bool = False, attributes: Mapping[str, str] | None = None
) -> bytes:
    """Return a message of a headers phase."""
    message = ProcessingRequest()
    getattr(message, phase).CopyFrom(HttpHeaders(headers=header_map(values), end_of_stream=end))
    if attributes is not None:
        message.attributes["envoy.filters.http.ext_proc"].update(attributes)
    return message.SerializeToString()


def body(phase: str, data: bytes, *, end: bool = False) -> bytes:
    """Return a message of a body phase."""
    message = ProcessingRequest()
    getattr(message, phase).CopyFrom(HttpBody(body=data, end_of_stream=end))
    return message.SerializeToString()


def trailers(phase: str) -> bytes:
    """Return a message of a trailers phase."""
    message = ProcessingRequest()
    getattr(message, phase).CopyFrom(HttpTrailers(trailers=header_map({"x-a": "b"})))
    return message.SerializeToString()


def header_map(values: Mapping[str, str]) -> HeaderMap:
    """Return headers as Envoy writes them: each value as bytes."""
    return HeaderMap(headers=[HeaderValue(key=key, raw_value=value.encode()) for key, value in values.items()])


def phase_of(reply: bytes) -> str | None:
    """Return which phase a reply is for."""
    phase: str | None = ProcessingResponse.FromString(reply).WhichOneof("response")
    return phase


def metadata_of(reply: bytes) -> dict[str, Any]:
    """Return the metadata a reply sets; integral numbers are floats, as on the wire."""
    struct = ProcessingResponse.FromString(reply).dynamic_metadata
    found: dict[str, Any] = MessageToDict(struct).get(NAMESPACE, {})
    return found
