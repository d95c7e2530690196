"""The wire in both directions: what envoy-data-plane writes we read, and what we write it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as filters
from envoy_data_plane.envoy.service.ext_proc import v3 as envoy
from envoy_data_plane.google import protobuf as google
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from extproc.wire.ext_proc_pb2 import (
    HeaderMap,
    HeaderValue,
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.wire.replies import IGNORE, PHASES, UNCHANGED, WATCH, Metadata, encoded, with_metadata

REPLIES = {
    **UNCHANGED,
    **{f"{phase} (watch)": reply for phase, reply in WATCH.items()},
    "request_headers (ignore)": IGNORE,
}

HEADER, BODY = filters.ProcessingModeHeaderSendMode, filters.ProcessingModeBodySendMode


@dataclass(frozen=True)
class Message:
    """What a request says, in nobody's terms."""

    phase: str
    headers: list[tuple[str, str, bytes]]
    """Name, `value`, `raw_value`."""
    body: bytes
    end_of_stream: bool
    attributes: dict[str, dict[str, Any]]
    observability_mode: bool


def nested() -> st.SearchStrategy[dict[str, Any]]:
    """Generate what a google.protobuf.Struct can hold."""
    numbers = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)
    leaves = st.none() | st.booleans() | numbers | st.text(max_size=20)
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
    return st.dictionaries(st.text(max_size=20), values, max_size=4)


def messages() -> st.SearchStrategy[Message]:
    """Generate requests of all phases."""
    return st.builds(
        Message,
        phase=st.sampled_from(PHASES),
        headers=st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20), st.binary(max_size=20)), max_size=5),
        body=st.binary(max_size=200),
        end_of_stream=st.booleans(),
        attributes=st.dictionaries(st.text(max_size=20), nested(), max_size=3),
        observability_mode=st.booleans(),
    )


def unknown_fields() -> st.SearchStrategy[dict[str, Any]]:
    """Generate the fields of a request that we leave out."""
    modes = st.sampled_from(list(filters.ProcessingModeBodySendMode))
    return st.fixed_dictionaries(
        {},
        optional={
            "metadata_context": st.dictionaries(st.text(max_size=9), nested(), max_size=2).map(
                lambda spaces: core.Metadata(filter_metadata={name: struct(value) for name, value in spaces.items()})
            ),
            "protocol_config": st.builds(
                envoy.ProtocolConfiguration,
                request_body_mode=modes,
                response_body_mode=modes,
                send_body_without_waiting_for_header_response=st.booleans(),
            ),
        },
    )


def struct(plain: dict[str, Any]) -> google.Struct:
    """Put a dictionary into Envoy's Struct."""
    return google.Struct(fields={key: _value(value) for key, value in plain.items()})


def _value(plain: Any) -> google.Value:  # noqa: ANN401 - any JSON
    if plain is None:
        return google.Value(null_value=google.NullValue.NULL_VALUE)
    if isinstance(plain, bool):
        return google.Value(bool_value=plain)
    if isinstance(plain, int | float):
        return google.Value(number_value=float(plain))
    if isinstance(plain, str):
        return google.Value(string_value=plain)
    if isinstance(plain, dict):
        return google.Value(struct_value=struct(plain))
    return google.Value(list_value=google.ListValue(values=[_value(item) for item in plain]))


def as_envoys(message: Message) -> envoy.ProcessingRequest:
    """Put a message into Envoy's types."""
    headers = core.HeaderMap(
        headers=[core.HeaderValue(key=key, value=value, raw_value=raw) for key, value, raw in message.headers]
    )
    content: Any
    match message.phase.rpartition("_")[2]:
        case "headers":
            content = envoy.HttpHeaders(headers=headers, end_of_stream=message.end_of_stream)
        case "body":
            content = envoy.HttpBody(body=message.body, end_of_stream=message.end_of_stream)
        case _:
            content = envoy.HttpTrailers(trailers=headers)
    request = envoy.ProcessingRequest(
        attributes={name: struct(values) for name, values in message.attributes.items()},
        observability_mode=message.observability_mode,
    )
    setattr(request, message.phase, content)
    return request


def as_ours(message: Message) -> ProcessingRequest:
    """Put a message into our types."""
    headers = HeaderMap(
        headers=[HeaderValue(key=key, value=value, raw_value=raw) for key, value, raw in message.headers]
    )
    content: HttpHeaders | HttpBody | HttpTrailers
    match message.phase.rpartition("_")[2]:
        case "headers":
            content = HttpHeaders(headers=headers, end_of_stream=message.end_of_stream)
        case "body":
            content = HttpBody(body=message.body, end_of_stream=message.end_of_stream)
        case _:
            content = HttpTrailers(trailers=headers)
    request = ProcessingRequest(observability_mode=message.observability_mode)
    getattr(request, message.phase).CopyFrom(content)
    for name, values in message.attributes.items():
        request.attributes[name].CopyFrom(Struct())
        request.attributes[name].update(values)
    return request


@given(messages(), unknown_fields())
def test_we_read_what_envoy_writes(message: Message, unknown: dict[str, Any]) -> None:
    """Every field that we know arrives, whatever stands beside it that we do not know."""
    written = as_envoys(message)
    for name, value in unknown.items():
        setattr(written, name, value)
    read = ProcessingRequest.FromString(bytes(written))
    assert read.WhichOneof("request") == message.phase
    read.DiscardUnknownFields()  # type: ignore[no-untyped-call, unused-ignore]
    assert read == as_ours(message)


@given(messages())
def test_envoy_reads_what_we_write(message: Message) -> None:
    """A request made of our types is the same request to Envoy."""
    read = envoy.ProcessingRequest.parse(as_ours(message).SerializeToString())
    assert read == as_envoys(message)


def replied(reply: bytes) -> tuple[str, envoy.ProcessingResponse]:
    """Read a reply as Envoy does; return the phase it is for, having checked that it changes nothing."""
    read = envoy.ProcessingResponse.parse(reply)
    (phase,) = (phase for phase in PHASES if getattr(read, phase) is not None)
    content = getattr(read, phase)
    assert content == type(content)()
    if not isinstance(content, envoy.TrailersResponse):
        # Absent is the default, and the default goes on.
        assert content.response is None
        assert envoy.CommonResponse().status is envoy.CommonResponseResponseStatus.CONTINUE
    assert read.immediate_response is None
    assert read.streamed_immediate_response is None
    assert read.override_message_timeout is None
    assert read.request_drain is False
    return phase, read


@pytest.mark.parametrize("phase", PHASES)
def test_unchanged(phase: str) -> None:
    """To each phase Envoy is told to go on, and nothing else."""
    expected = envoy.ProcessingResponse()
    found, read = replied(UNCHANGED[phase])
    setattr(expected, phase, getattr(read, phase))
    assert found == phase
    assert read == expected


def test_ignore() -> None:
    """Envoy is told to go on and to send no more of the exchange, whatever its configuration asks for."""
    phase, read = replied(IGNORE)
    assert phase == "request_headers"
    assert read.dynamic_metadata is None
    assert read.mode_override == filters.ProcessingMode(
        response_header_mode=HEADER.SKIP,
        request_body_mode=BODY.NONE,
        response_body_mode=BODY.NONE,
        request_trailer_mode=HEADER.SKIP,
        response_trailer_mode=HEADER.SKIP,
    )


@pytest.mark.parametrize("phase", PHASES)
def test_watch(phase: str) -> None:
    """Envoy is told to show a body in reply to its own headers, and no body before its headers; and all trailers."""
    found, read = replied(WATCH[phase])
    assert found == phase
    shown = {"request_headers": BODY.NONE, "response_headers": BODY.STREAMED}
    if phase not in shown:
        assert read.mode_override is None
        return
    assert read.mode_override == filters.ProcessingMode(
        request_body_mode=BODY.STREAMED,
        response_body_mode=shown[phase],
        request_trailer_mode=HEADER.SEND,
        response_trailer_mode=HEADER.SEND,
    )


@given(
    st.sampled_from(sorted(REPLIES)),
    st.text(min_size=1, max_size=20),
    st.dictionaries(
        st.text(max_size=20),
        st.text(max_size=50) | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False),
        min_size=1,
        max_size=8,
    ),
)
def test_metadata(name: str, namespace: str, metadata: Metadata) -> None:
    """Metadata arrives key by key and type by type, beside the reply that it was added to."""
    plain = envoy.ProcessingResponse.parse(REPLIES[name])
    phase, read = replied(with_metadata(REPLIES[name], namespace, encoded(metadata)))
    assert phase == name.partition(" ")[0]
    assert read.mode_override == plain.mode_override
    assert read.dynamic_metadata == struct({namespace: dict(metadata)})


@given(st.sampled_from(sorted(REPLIES)), st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3))
def test_our_own_replies(name: str, metadata: Metadata) -> None:
    """The reading of our own implementation is Envoy's."""
    reply = with_metadata(REPLIES[name], "asm.llmproxy", encoded(metadata))
    ours = ProcessingResponse.FromString(reply)
    assert envoy.ProcessingResponse.parse(ours.SerializeToString()) == envoy.ProcessingResponse.parse(reply)
    assert ours.WhichOneof("response") == name.partition(" ")[0]
