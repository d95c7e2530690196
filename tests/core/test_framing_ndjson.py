"""Lines of JSON to documents."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.facts import Gap
from extproc.core.framing import NdJson
from tests import cuts
from tests.cuts import bytewise, every_way
from tests.framings import documents, peak_memory

BOM = b"\xef\xbb\xbf"

LINES = {
    "lf": (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
    "crlf": (b'{"a":1}\r\n{"b":2}\r\n', [b'{"a":1}', b'{"b":2}']),
    "no line end at the end": (b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
    "no line end but cr at the end": (b'{"a":1}\n{"b":2}\r', [b'{"a":1}', b'{"b":2}']),
    "blank lines": (b'\n\r\n  \n{"a":1}\n\t\n\n\r\n', [b'{"a":1}']),
    "white space around": (b' \t{"a":1} \r\n', [b'{"a":1}']),
    "cr is white space": (b'{"a":\r1}\n', [b'{"a":\r1}']),
    "escapes": (rb'{"a":"\n\"\\\ud83d"}' + b"\n", [rb'{"a":"\n\"\\\ud83d"}']),
    "characters of many bytes": (
        '{"a":"\u4f60\U0001f600\u2028\x85"}\n'.encode(),
        ['{"a":"\u4f60\U0001f600\u2028\x85"}'.encode()],
    ),
    "bom": (BOM + b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
    "only a bom": (BOM + b"\n", []),
    "no json": (b"Bad Gateway\n", [b"Bad Gateway"]),
    "nothing": (b"", []),
    "nothing but blank": (b" \n ", []),
}


@pytest.mark.parametrize(("body", "expected"), LINES.values(), ids=LINES.keys())
def test_lines(body: bytes, expected: list[bytes]) -> None:
    """Each line that is not blank is a document, however the body is cut."""
    for pieces in every_way(body):
        assert documents(NdJson(1000), pieces) == expected


PARTS = [b'{"a":1}', b"\n", b"\r\n", b"\r", b" ", b"x" * 40, b"\\n", b'"']


@given(body=st.lists(st.sampled_from(PARTS)).map(b"".join), places=cuts.places)
def test_lines_random(body: bytes, places: list[float]) -> None:
    """Any body, cut anywhere, has the lines that a simple reader of the whole finds."""
    expected = [line.strip() for line in body.split(b"\n") if line.strip()]
    assert documents(NdJson(1000), cuts.at(places, body)) == expected
    assert documents(NdJson(1000), bytewise(body)) == expected
    # Over the limit, no cut makes a difference.
    assert documents(NdJson(30), cuts.at(places, body)) == documents(NdJson(30), [body])


def test_at_once() -> None:
    """A document is yielded with its line end, not with the next document."""
    framing = NdJson(1000)
    assert list(framing.feed(b'{"a":1}')) == []
    assert list(framing.feed(b"\n")) == [b'{"a":1}']
    assert list(framing.end()) == []


LONG = b"x" * 60


@pytest.mark.parametrize("start", [b"", BOM, b" " * 50])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_limit(start: bytes, line_end: bytes) -> None:
    """A line over the limit is skipped and the next one counts; one of the limit's length is none."""
    exact = b"y" * 40
    body = start + exact + line_end + LONG + line_end + exact + line_end + LONG
    for pieces in every_way(body):
        assert documents(NdJson(40), pieces) == [exact, Gap.TOO_LARGE, exact, Gap.TOO_LARGE]


def test_wanted() -> None:
    """Of a line over the limit the wanted members follow the gap."""
    body = b'{"image":"' + LONG + b'","usage":{"a":1}}\r\n{"a":"' + LONG + b'"\n{"a":1}\n'
    for pieces in every_way(body):
        assert documents(NdJson(40, ["usage"]), pieces) == [
            Gap.TOO_LARGE,
            b'{"usage":{"a":1}}',
            Gap.TOO_LARGE,
            b'{"a":1}',
        ]


def test_memory() -> None:
    """Lines of any length take no more memory than the limit allows."""
    for character in (b"x", b" "):
        assert peak_memory(NdJson(100_000), (character * 10_000 for _ in range(500))) < 400_000
