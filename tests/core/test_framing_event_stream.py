"""AWS event streams to documents."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.facts import Gap
from extproc.core.framing import EventStream
from tests import cuts
from tests.cuts import bytewise, every_way
from tests.framings import documents, peak_memory

EVENT = {":message-type": "event", ":event-type": "chunk", ":content-type": "application/json"}


def encoded(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Encode a message; that it is one, `test_another_implementation` has botocore say."""
    raw = b"".join(
        struct.pack(
            f">B{len(name)}sBH{len(value.encode())}s", len(name), name.encode(), 7, len(value.encode()), value.encode()
        )
        for name, value in headers.items()
    )
    return framed(raw, payload)


def framed(raw_headers: bytes, payload: bytes) -> bytes:
    """Encode a message of which the headers are already."""
    prelude = struct.pack(">II", 16 + len(raw_headers) + len(payload), len(raw_headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + raw_headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def event(payload: bytes) -> bytes:
    """Encode an event."""
    return encoded(EVENT, payload)


def wrapped(document: bytes) -> bytes:
    """Wrap a document as InvokeModelWithResponseStream does."""
    return json.dumps({"bytes": base64.b64encode(document).decode(), "p": "abcdefghijk"}).encode()


FOO = b"{'foo':'bar'}"
PUBLISHED = {
    # AWS's test vectors, as in their SDKs: packages/eventstream-marshaller/src/TestVectors.fixture.ts of aws-sdk-js-v3
    "empty_message": ("00000010 00000000 05c248eb 7d98c8ff", []),
    "int32_header": ("0000002b 0000000e 348bec7b 08 6576656e742d6964 04 0000a00c" + FOO.hex() + "d3890285", [FOO]),
    "payload_no_headers": ("0000001d 00000000 fd528c5a" + FOO.hex() + "c3653936", [FOO]),
    "payload_one_str_header": (
        "0000003d 00000020 07fd8396 0c 636f6e74656e742d74797065 07 0010 6170706c69636174696f6e2f6a736f6e"
        + FOO.hex()
        + "8d9c08b1",
        [FOO],
    ),
    "corrupted_headers": (
        "0000003d 00000020 07fd8396 0c 636f6e74656e742b74797065 07 0010 6170706c69636174696f6e2f6a736f6e"
        + FOO.hex()
        + "8d9c08b1",
        [Gap.UNPARSABLE],
    ),
    "corrupted_header_len": (
        "0000003d 00000120 07fd8396 0c 636f6e74656e742d74797065 07 0010 6170706c69636174696f6e2f6a736f6e"
        + FOO.hex()
        + "8d9c08b1",
        [Gap.UNPARSABLE],
    ),
    "corrupted_length": ("0100001d 00000000 fd528c5a" + FOO.hex() + "c3653936", [Gap.UNPARSABLE]),
    "corrupted_payload": ("0000001d 00000000 fd528c5a" + FOO[:-1].hex() + "8dc3653936", [Gap.UNPARSABLE]),
    # tests/unit/test_eventstream.py of botocore
    "all header types": (
        "00000062 00000052 03b5cb9c 013000 013101 01320202 0133030003 01340400000004 0135050000000000000005"
        "0136060005" + b"bytes".hex() + "0137070004" + b"utf8".hex() + "0138080000000000000008"
        "013909" + b"0123456789abcdef".hex() + "63353671",
        [],
    ),
    "error": (
        "00000052 00000042 bf23637e 0d" + b":message-type".hex() + "070005" + b"error".hex()
        + "0b" + b":error-code".hex() + "070004" + b"code".hex()
        + "0e" + b":error-message".hex() + "070007" + b"message".hex() + "6b6cea3d",
        [b'{"error":{"code":"code","message":"message"}}'],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published(message: str, expected: list[bytes | Gap]) -> None:
    """AWS's own test vectors are read as AWS says, however they are cut."""
    body = bytes.fromhex(message)
    broken = expected == [Gap.UNPARSABLE]
    for pieces in every_way(body):
        assert documents(EventStream(1000), pieces) == expected
    for pieces in every_way(body + event(b"{}")):
        assert documents(EventStream(1000), pieces) == (expected if broken else [*expected, b"{}"])


MESSAGES = st.lists(
    st.tuples(
        st.dictionaries(st.text(alphabet=st.characters(codec="ascii"), min_size=1, max_size=20), st.text(max_size=20)),
        st.binary(max_size=40),
    )
)


@given(messages=MESSAGES, places=cuts.places)
def test_another_implementation(messages: list[tuple[dict[str, str], bytes]], places: list[float]) -> None:
    """The payloads are those that botocore reads, which also checks our encoder."""
    events = [({**headers, ":message-type": "event"}, payload) for headers, payload in messages]
    body = b"".join(encoded(headers, payload) for headers, payload in events)
    theirs = EventStreamBuffer()
    theirs.add_data(body)
    read = [(message.headers, message.payload) for message in theirs]
    assert read == events
    expected = [payload for _, payload in read if payload]
    assert documents(EventStream(len(body)), cuts.at(places, body)) == expected
    assert documents(EventStream(len(body)), bytewise(body)) == expected


INNER = '{"type":"message_delta","usage":{"output_tokens":3},"text":"\u4f60\\n"}'.encode()
CONVERSE = b'{"contentBlockIndex":0,"delta":{"text":"Hi"},"p":"abcd"}'
EVENTS = {
    "converse": (CONVERSE, CONVERSE),
    "wrapped": (wrapped(INNER), INNER),
    "wrapped, escaped": (rb'{"bytes": "\/\/\/+"}', b"\xff\xff\xfe"),
    "wrapped, white space": (b' { "p": 1, "bytes" : "e30=" }\n', b"{}"),
    "wrapped, broken": (b'{"bytes": "e30"}', Gap.UNPARSABLE),
    "wrapped, no base64": (b'{"bytes": "{}, \xc3\xa4"}', Gap.UNPARSABLE),
    "bytes is no string": (b'{"bytes": 5}', b'{"bytes": 5}'),
    "bytes is empty": (b'{"bytes": ""}', b'{"bytes": ""}'),
    "bytes further in": (b'{"source": {"bytes": "e30="}}', b'{"source": {"bytes": "e30="}}'),
    "bytes in a string": (b'{"a": "\\"bytes\\": "}', b'{"a": "\\"bytes\\": "}'),
    "no object": (b'["bytes"]', b'["bytes"]'),
    "no json": (b'"bytes" {', b'"bytes" {'),
}


@pytest.mark.parametrize(("payload", "expected"), EVENTS.values(), ids=EVENTS.keys())
def test_event(payload: bytes, expected: bytes | Gap) -> None:
    """The payload of an event is a document, or the document that it carries in Base64."""
    for pieces in every_way(event(payload) + event(b"{}")):
        assert documents(EventStream(1000), pieces) == [expected, b"{}"]


EXCEPTION = {":message-type": "exception", ":exception-type": "throttlingException"}
ERRORS: dict[str, tuple[dict[str, str], bytes, object]] = {
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ResponseStream.html
    "exception": (EXCEPTION, b'{"message":"Too many"}', {"code": "throttlingException", "message": "Too many"}),
    "exception with more": (
        {":message-type": "exception", ":exception-type": "modelStreamErrorException"},
        b'{"message":"m","originalStatusCode":424,"p":null}',
        {"code": "modelStreamErrorException", "message": "m", "originalStatusCode": 424, "p": None},
    ),
    "exception without payload": (EXCEPTION, b"", {"code": "throttlingException"}),
    "exception of text": (EXCEPTION, b"Too many", {"code": "throttlingException"}),
    "exception of an array": (EXCEPTION, b"[]", {"code": "throttlingException"}),
    "exception of nothing": (EXCEPTION, b"{}", {"code": "throttlingException"}),
    "exception, broken characters": (EXCEPTION, b'{"\xff": 1}', {"code": "throttlingException"}),
    "exception, deep": (EXCEPTION, b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", {"code": "throttlingException"}),
    "exception without name": ({":message-type": "exception"}, b"{}", {"code": "exception"}),
    "error": (
        {":message-type": "error", ":error-code": "InternalError", ":error-message": "An \u00e4"},
        b"",
        {"code": "InternalError", "message": "An \u00e4"},
    ),
}


@pytest.mark.parametrize(("headers", "payload", "expected"), ERRORS.values(), ids=ERRORS.keys())
def test_error(headers: Mapping[str, str], payload: bytes, expected: object) -> None:
    """An exception or error is a document with a member `error`, which is never empty."""
    body = event(b"{}") + encoded(headers, payload)
    for pieces in ([body], bytewise(body)):
        first, error = documents(EventStream(100_000), pieces)
        assert first == b"{}"
        assert isinstance(error, bytes)
        assert json.loads(error) == {"error": expected}


def test_repeated_member() -> None:
    """Members of a name in other than ASCII characters do no harm to an error."""
    [error] = documents(EventStream(1000), [encoded(EXCEPTION, b'{"\\u4f60":1,"message":"a","message":"b"}')])
    assert isinstance(error, bytes)
    assert json.loads(error)["error"] == {"code": "throttlingException", "\u4f60": 1, "message": "b"}


@pytest.mark.parametrize(
    "headers",
    [
        b"\x04name",
        b"\x04nam",
        b"\xff",
        b"\x01a\x0a",
        b"\x01a\xff",
        b"\x01a\x04\x00",
        b"\x01a\x07",
        b"\x01a\x07\x00",
        b"\x01a\x07\x00\x05utf8",
        b"\x01a\x06\xff\xff",
        b"\x01a\x09" + b"0" * 15,
    ],
)
def test_broken_headers(headers: bytes) -> None:
    """Headers that cannot be are named, and what follows the message counts."""
    for pieces in every_way(framed(headers, b"{}") + event(b"{}")):
        assert documents(EventStream(1000), pieces) == [Gap.UNPARSABLE, b"{}"]


def test_broken_characters() -> None:
    """Headers in broken characters do no harm."""
    body = framed(b"\x01\xff\x07\x00\x01\xff", b"{}")
    assert documents(EventStream(1000), [body]) == [b"{}"]


def test_corrupted() -> None:
    """Whichever byte of a message is not what it was, nothing from there on is read as a document."""
    first, message = event(b'{"a":1}'), event(b'{"a":2}')
    for position in range(len(message)):
        body = bytearray(first + message + event(b'{"a":3}'))
        body[len(first) + position] ^= 0x40
        for pieces in ([bytes(body)], bytewise(bytes(body))):
            assert documents(EventStream(1000), pieces) == [b'{"a":1}', Gap.UNPARSABLE]


@pytest.mark.parametrize(("length", "headers"), [(0, 0), (15, 0), (16, 1), (100, 85), (100, 2**32 - 1)])
def test_lengths_that_cannot_be(length: int, headers: int) -> None:
    """Lengths that contradict each other are named, and nothing more is read."""
    prelude = struct.pack(">II", length, headers)
    body = event(b"{}") + prelude + struct.pack(">I", zlib.crc32(prelude)) + event(b"{}") * 3
    for pieces in ([body], bytewise(body)):
        assert documents(EventStream(1000), pieces) == [b"{}", Gap.UNPARSABLE]


def test_truncated() -> None:
    """A stream that ends inside a message says so, and has what came before."""
    first, second = event(b'{"a":1}'), event(b'{"a":2}')
    for end in range(1, len(second)):
        for pieces in ([first + second[:end]], bytewise(first + second[:end])):
            assert documents(EventStream(1000), pieces) == [b'{"a":1}', Gap.TRUNCATED]


def test_limit() -> None:
    """A message over the limit is skipped and what follows counts; one of the limit's length is read."""
    exact = event(b"x" * 40)
    long = event(b"x" * 41)
    for pieces in every_way(exact + long + exact + event(b"x" * 200) + exact):
        found = documents(EventStream(len(exact)), pieces)
        assert found == [b"x" * 40, Gap.TOO_LARGE, b"x" * 40, Gap.TOO_LARGE, b"x" * 40]
    for pieces in every_way(long[:-1]):
        assert documents(EventStream(len(exact)), pieces) == [Gap.TOO_LARGE, Gap.TRUNCATED]


def test_memory() -> None:
    """A message of any length takes no more memory than the limit allows, and no length is believed in."""
    long = event(b"x" * 5_000_000)
    pieces = [long[i : i + 10_000] for i in range(0, len(long), 10_000)]
    assert peak_memory(EventStream(100_000), pieces) < 100_000
    prelude = struct.pack(">II", 2**32 - 1, 0)
    prelude += struct.pack(">I", zlib.crc32(prelude))
    assert peak_memory(EventStream(100_000), [prelude, *pieces]) < 100_000
    assert peak_memory(EventStream(100_000), [b"x" * 12, *pieces]) < 100_000
    held = event(b"x" * 90_000)
    assert peak_memory(EventStream(100_000), [held[i : i + 1000] for i in range(0, len(held), 1000)] * 5) < 500_000


@given(body=st.binary(max_size=200), headers=st.binary(max_size=60), payload=st.binary(max_size=60), places=cuts.places)
def test_never_raises(body: bytes, headers: bytes, payload: bytes, places: list[float]) -> None:
    """No bytes make it raise, and no cut changes what it finds."""
    whole = framed(headers, payload) + body
    for stream in (body, whole):
        found = documents(EventStream(100), [stream])
        assert documents(EventStream(100), cuts.at(places, stream)) == found
