"""Framings: bodies to documents."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.facts import Gap
from extproc.core.framing import Json, Sse
from extproc.core.skim import ARRAY
from tests import cuts
from tests.cuts import bytewise, every_way
from tests.framings import documents, peak_memory

BOM = b"\xef\xbb\xbf"


def reference(body: bytes) -> list[bytes]:
    """Interpret an event stream the simple way: all at once."""
    *lines, unfinished = re.split(rb"\r\n|\r|\n", body.removeprefix(BOM))
    events: list[bytes] = []
    data: list[bytes] = []
    for line in [*lines, unfinished, b""]:
        if line.startswith(b"data:"):
            data.append(line.removeprefix(b"data:").removeprefix(b" "))
        elif not line:
            events.append(b"\n".join(data))
            data = []
    return [event for event in events if event.strip()]


# Line ends to Unicode and to str.splitlines, none to an event stream.
ELSEWHERE = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"

SSE = {
    # The four of https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    "whatwg: several lines": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [b"YHOO\n+2\n10"]),
    "whatwg: comment, id": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [b"first event", b"second event", b" third event"],
    ),
    # To a browser these are events of nothing and of a line end. Here neither is an event.
    "whatwg: no value": (b"data\n\ndata\ndata\n\ndata:", []),
    "whatwg: space after colon": (b"data:test\n\ndata: test\n\n", [b"test", b"test"]),
    "lf": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "cr": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "all line ends": (b"data: a\r\n\rdata: b\n\r\ndata: c\r\n\n", [b"a", b"b", b"c"]),
    "bom": (BOM + b"data: a\n\n", [b"a"]),
    "bom only at the start": (b"data: a\n\n" + BOM + b"data: b\n\n", [b"a"]),
    "bom, comment": (BOM + b": ping\n\ndata: a\n\n", [b"a"]),
    "comments": (b": OPENROUTER PROCESSING\n\n:\n\n:data: a\n\ndata: b\n\n", [b"b"]),
    "other fields": (b"event: message_start\ndata: a\nid: 7\nretry: 10\nfoo: bar\n\n", [b"a"]),
    "field of another case": (b"Data: a\n\n", []),
    "field that begins alike": (b"database: a\n\ndata : a\n\n", []),
    "no blank line at the end": (b"data: a\n\ndata: b\n", [b"a", b"b"]),
    "no line end at the end": (b"data: a\n\ndata: b", [b"a", b"b"]),
    "blank lines": (b"\n\n\r\n\r\rdata: a\n\n\n\n\n", [b"a"]),
    "empty data": (b"data:\n\ndata: \n\ndata: a\n\n", [b"a"]),
    "blank data": (b"data:  \n\ndata:\ndata:\n\ndata: \t\n\ndata: a\n\n", [b"a"]),
    "dashscope": (
        # https://help.aliyun.com/zh/model-studio/qwen-api-via-dashscope: comments, no space after the colon
        (
            b'id:1\nevent:result\n:HTTP_STATUS/200\ndata:{"output":{"text":"a"},"usage":{"total_tokens":3}}\n\n'
            b'id:2\nevent:error\n:HTTP_STATUS/400\ndata:{"code":"DataInspectionFailed"}\n\n'
        ),
        [b'{"output":{"text":"a"},"usage":{"total_tokens":3}}', b'{"code":"DataInspectionFailed"}'],
    ),
    "escapes": (rb'data: "\"\\\u4f60\ud83d\ude00\n"' + b"\r\n\r\n", [rb'"\"\\\u4f60\ud83d\ude00\n"']),
    "characters of many bytes, crlf": ("data: \u4f60\U0001f600\r\n\r\n".encode(), ["\u4f60\U0001f600".encode()]),
    "empty data line": (b"data: a\ndata:\ndata: b\n\n", [b"a\n\nb"]),
    "line separator": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\n\n".encode(),
        ["a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg".encode()],
    ),
    "characters of many bytes": ("data: \u4f60\U0001f600\n\n".encode(), ["\u4f60\U0001f600".encode()]),
    "broken characters": (b"data: \xff\xc3\n\n", [b"\xff\xc3"]),
    "nul": (b"data: \0\n\n", [b"\0"]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("body", "expected"), SSE.values(), ids=SSE.keys())
def test_sse(body: bytes, expected: list[bytes]) -> None:
    """The data of each event is yielded, however the stream is cut."""
    assert reference(body) == expected
    for pieces in every_way(body):
        assert documents(Sse(1000), pieces) == expected


PARTS = [b"data:", b"data: ", b"data", b"event: x", b":", b": c", b"\n", b"\r", b"\r\n", b"\n\n", b'{"a":1}', BOM, b" "]


@given(body=st.lists(st.sampled_from(PARTS)).map(b"".join), places=cuts.places)
def test_sse_random(body: bytes, places: list[float]) -> None:
    """Any stream, cut anywhere, has the events that a simple reader of the whole finds."""
    if body.lstrip(b"\r\n").startswith(BOM):
        body = b":" + body  # a BOM behind blank lines is none, but harmless: it is let pass
    pieces = cuts.at(places, body)
    assert documents(Sse(1000), pieces) == reference(body)
    assert documents(Sse(1000), bytewise(body)) == reference(body)


def test_sse_at_once() -> None:
    """An event is yielded with the byte that ends its blank line, not with the next event."""
    for blank in (b"\n\n", b"\r\r", b"\r\n\r"):
        framing = Sse(1000)
        assert list(framing.feed(b"data: a" + blank[:-1])) == []
        assert list(framing.feed(blank[-1:])) == [b"a"]


VALUE = b"x" * 40  # of the limit's length
LONG = b"x" * 60
TOO_LARGE = {
    "one line": b"data: " + LONG,
    "several lines": b"\n".join(b"data: " + LONG[:9] for _ in range(6)),
    "short line, long line": b"data: a\ndata: " + LONG,
    "long line, short line": b"data: " + LONG + b"\ndata: a",
    "long line, other fields": b"data: " + LONG + b"\nid: 1\nevent: e",
    "line full of fields": b"data: " + b"data: " * 20,
    "beyond recovery": b"data: " + LONG + b"\ndata: " + LONG,
}


@pytest.mark.parametrize("event", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_sse_too_large(event: bytes) -> None:
    """An event over the limit is skipped, whatever it is made of, and the next one counts again."""
    for start in (b"", BOM):
        body = start + event + b"\n\ndata: after\n\n"
        for pieces in every_way(body):
            assert documents(Sse(40), pieces) == [Gap.TOO_LARGE, b"after"]


@pytest.mark.parametrize(
    "event",
    [
        b"data: " + VALUE,
        b"data:" + VALUE,
        BOM + b"data: " + VALUE,
        b"id: 1\ndata: " + VALUE + b"\nevent: e",
        b"data: " + VALUE[:20] + b"\ndata: " + VALUE[21:],
        b": " + LONG + b"\ndata: " + VALUE + b"\nfoo: " + LONG,
    ],
)
def test_sse_at_the_limit(event: bytes) -> None:
    """Data of the limit's length is yielded, whatever else there is."""
    for pieces in every_way(event + b"\n\n"):
        [data] = documents(Sse(40), pieces)
        assert isinstance(data, bytes)
        assert data.replace(b"\n", b"x") == VALUE


def test_sse_too_large_at_the_end() -> None:
    """An event over the limit is named too if the stream ends with it."""
    for body in (b"data: " + LONG, b"data: " + LONG + b"\n", b"data: " + LONG + b"\n\n"):
        for pieces in every_way(body):
            assert documents(Sse(40), pieces) == [Gap.TOO_LARGE]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("start", [b"data: ", b"data:", BOM + b"data: ", b"event: e\ndata: {\ndata:"])
def test_sse_too_large_wanted(start: bytes, line_end: bytes) -> None:
    """Of an event over the limit the wanted members follow the gap."""
    start = start.replace(b"\n", line_end)
    members = b'"image": "' + LONG + b'", "usage": {"a": 1}}'
    event = start + (members if b"{" in start else b"{" + members)
    body = event + line_end * 2 + b"data: after" + line_end * 2
    for pieces in every_way(body):
        assert documents(Sse(40, ["usage"]), pieces) == [Gap.TOO_LARGE, b'{"usage":{"a": 1}}', b"after"]


@pytest.mark.parametrize("data", [LONG, b'{"usage": 1, "a": "' + LONG, b"[1, " + LONG + b"]"])
def test_sse_too_large_not_an_object(data: bytes) -> None:
    """An event over the limit that is no whole object leaves the gap only."""
    for pieces in every_way(b"data: " + data + b"\n\ndata: after\n\n"):
        assert documents(Sse(40, ["usage"]), pieces) == [Gap.TOO_LARGE, b"after"]


def test_too_much_is_wanted() -> None:
    """Where more is wanted of an array than can be held, nothing follows the gap."""
    document = b'{"a": [' + b",".join([b'{"b": "' + b"x" * 1000 + b'"}'] * (ARRAY // 1000)) + b"]}"
    for pieces in ([document], [document[:1000], document[1000:]]):
        assert documents(Json(100, ["a[].b"]), pieces) == [Gap.TOO_LARGE]
        events = [b"data: ", *pieces, b"\n\n", b"data: after\n\n"]
        assert documents(Sse(100, ["a[].b"]), events) == [Gap.TOO_LARGE, b"after"]


def test_sse_memory() -> None:
    """Lines of any length take no more memory than the limit allows."""
    for start in (b"data: ", b": ", b"foo", b'data: {"usage": "'):
        for wanted in ((), ("usage",)):
            assert peak_memory(Sse(100_000, wanted), [start, *(b"x" * 10_000 for _ in range(500))]) < 400_000
    lines = (b"data: " + b"x" * 10_000 + b"\n" for _ in range(500))
    assert peak_memory(Sse(100_000), lines) < 400_000


JSON = {
    "object": (b'{"a": 1}', [b'{"a": 1}']),
    "white space": (b' \r\n\t{"a": 1}\n\n', [b'{"a": 1}']),
    "bom": (BOM + b'{"a": 1}', [b'{"a": 1}']),
    "not json": (b"Bad Gateway", [b"Bad Gateway"]),
    "nothing": (b"", []),
    "blank": (b"\n \n", []),
}


@pytest.mark.parametrize(("body", "expected"), JSON.values(), ids=JSON.keys())
def test_json(body: bytes, expected: list[bytes]) -> None:
    """The body is the document, and no body is none."""
    for pieces in every_way(body):
        assert documents(Json(100, ["a"]), pieces) == expected


@given(limit=st.integers(0, 60), places=cuts.places)
def test_json_over_the_limit(limit: int, places: list[float]) -> None:
    """A document over the limit is reduced to the wanted members, however it is cut and wherever the limit lies."""
    body = b' {"x": ["\\"", {"a": 0}], "a": {"b": 1}, "y": "a", "c" :2} '
    pieces = cuts.at(places, body)
    [document] = documents(Json(limit, ["a", "c"]), pieces)
    assert isinstance(document, bytes)
    members = json.loads(document)
    assert {name: members[name] for name in ("a", "c")} == {"a": {"b": 1}, "c": 2}
    assert len(members) == (2 if limit < len(body) else 4)


@pytest.mark.parametrize("body", [b'{"a": 1', b"[1, 2, 3]", b'"some text"', b"Service Unavailable", b"{{{{{{{{"])
def test_json_over_the_limit_unparsable(body: bytes) -> None:
    """A body over the limit that is no whole JSON object leaves a gap."""
    for pieces in every_way(body):
        assert documents(Json(4, ["a"]), pieces) == [Gap.UNPARSABLE]


CHUNKS = st.sampled_from(
    (
        b"data: a\n\n",
        b"event: e\ndata: b\n\n",
        b"data: c\r\n\r\n",
        b"data: d\n",
        b"\n",
        b"\r",
        b"data:e",
        b": f\n\n",
        BOM,
    )
)


@given(st.lists(CHUNKS | st.lists(CHUNKS, max_size=3).map(b"".join)))
def test_passing_over_a_whole_event(chunks: list[bytes]) -> None:
    """A chunk that would be one event can be passed over: what comes after it is read as if it had been fed."""
    fed, spared = Sse(100), Sse(100)
    for chunk in chunks:
        if spared.takes_one(chunk):
            assert len([*fed.feed(chunk)]) == 1
        else:
            assert [*fed.feed(chunk)] == [*spared.feed(chunk)]
    assert [*fed.end()] == [*spared.end()]


def test_what_is_passed_over() -> None:
    """Nearly all chunks of a stream can be; the first, which may begin with a BOM, and too long ones cannot."""
    framing = Sse(20)
    assert not framing.takes_one(b"data: a\n\n")
    assert [*framing.feed(b"data: a\n\n")] == [b"a"]
    assert framing.takes_one(b"data: a\n\n")
    assert framing.takes_one(b"event: e\ndata: a\n\n")
    assert not framing.takes_one(b"data: " + b"a" * 20 + b"\n\n")
