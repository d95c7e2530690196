"""A JSON array that grows to its elements."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.facts import Gap
from extproc.core.framing import JsonArray
from tests import cuts
from tests.cuts import bytewise, every_way
from tests.framings import documents, peak_memory

BOM = b"\xef\xbb\xbf"
A, B = b'{"a": [1, {"b": "}"}]}', b'{\n  "usageMetadata": {\n    "totalTokenCount": 9\n  }\n}'

ARRAYS = {
    "gemini": (b"[" + A + b"\n,\r\n" + B + b"\n]\n", [A, B]),
    "crlf": (b"[" + A + b"\r\n,\r\n" + B + b"]\r\n", [A, B]),
    "compact": (b"[" + A + b"," + B + b"]", [A, B]),
    "white space": (b" \r\n\t[ \n" + A + b" , " + B + b" ] ", [A, B]),
    "bom": (BOM + b"[" + A + b"]", [A]),
    "bom and white space": (b"\n" + BOM + b"\n[" + A + b"]", [A]),
    "empty": (b"[]", []),
    "empty, white space": (b"[ \r\n ]", []),
    "strings": (
        rb'[{"]": "\"}]", "\\": "\\\\\"{"}, {"a": "\ud83d"}]',
        [rb'{"]": "\"}]", "\\": "\\\\\"{"}', rb'{"a": "\ud83d"}'],
    ),
    "characters of many bytes": ('[{"a": "\u4f60\U0001f600"}]'.encode(), ['{"a": "\u4f60\U0001f600"}'.encode()]),
    "no comma": (b"[" + A + A + b"]", [A, A]),
    "commas": (b"[,," + A + b",, " + A + b",]", [A, A]),
    "other elements": (b'[1, "a,]", null ,[{}, "]"],true]', [b"1", b'"a,]"', b"null ", b'[{}, "]"]', b"true"]),
    "what follows": (b"[" + A + b"] [" + A + b"]", [A]),
    "closed by the other bracket": (b"[" + A + b"}" + A, [A]),
    "nothing": (b"", []),
    "blank": (b" \n", []),
    "no array": (A, [Gap.UNPARSABLE]),
    "no json": (b"Bad Gateway [1]", [Gap.UNPARSABLE]),
    "bom, no array": (BOM + b"x[]", [Gap.UNPARSABLE]),
    "half a bom": (BOM[:2], [Gap.UNPARSABLE]),
    "half a bom and an array": (BOM[:2] + b"[]", [Gap.UNPARSABLE]),
    "begun": (b"[", [Gap.TRUNCATED]),
    "between": (b"[" + A + b",", [A, Gap.TRUNCATED]),
    "inside": (b"[" + A + b"," + B[:-1], [A, Gap.TRUNCATED]),
    "inside a string": (b"[" + A + rb',{"a": "\\\"]', [A, Gap.TRUNCATED]),
    "after an escape": (b"[" + A + rb',{"a": "\\\\' + b"\\", [A, Gap.TRUNCATED]),
}


@pytest.mark.parametrize(("body", "expected"), ARRAYS.values(), ids=ARRAYS.keys())
def test_array(body: bytes, expected: list[bytes | Gap]) -> None:
    """The elements are yielded, however the body is cut; what is no array, or not a whole one, is named."""
    for pieces in every_way(body):
        assert documents(JsonArray(1000), pieces) == expected


def test_at_once() -> None:
    """An element is yielded with its last byte, not with the next comma."""
    framing = JsonArray(1000)
    assert list(framing.feed(b"[" + A[:-1])) == []
    assert list(framing.feed(A[-1:])) == [A]
    assert list(framing.feed(b"\r\n,\r\n" + B)) == [B]
    assert list(framing.feed(b"]")) == []
    assert list(framing.end()) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text(alphabet='"\\[]{},'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(
    elements=st.lists(VALUES),
    separator=st.sampled_from([",", "\r\n,\r\n", " , ", ",\n"]),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 2]),
    places=cuts.places,
)
def test_random(
    elements: list[object], separator: str, *, ascii_only: bool, indent: int | None, places: list[float]
) -> None:
    """Any array has the elements that another decoder finds in it."""
    texts = [json.dumps(element, ensure_ascii=ascii_only, indent=indent) for element in elements]
    body = f"[{separator.join(texts)}\r\n]\n".encode()
    for pieces in (cuts.at(places, body), bytewise(body)):
        found = documents(JsonArray(len(body)), pieces)
        assert [json.loads(document) for document in found if isinstance(document, bytes)] == elements
        assert len(found) == len(elements)


GARBAGE = [b"{", b"}", b"[", b"]", b'"', b"\\", b",", b"1", b" ", BOM, b"\xff", b'{"a":1}']


@given(body=st.lists(st.sampled_from(GARBAGE) | st.binary(max_size=3)).map(b"".join), places=cuts.places)
def test_never_raises(body: bytes, places: list[float]) -> None:
    """No bytes make it raise, and no cut changes what it finds."""
    for limit in (8, 1000):
        for wanted in ((), ("a",)):
            for whole in (body, b"[" + body):
                found = documents(JsonArray(limit, wanted), [whole])
                assert documents(JsonArray(limit, wanted), cuts.at(places, whole)) == found
                assert documents(JsonArray(limit, wanted), bytewise(whole)) == found


LONG = b"x" * 60


@pytest.mark.parametrize(
    "element",
    [
        b'{"a": "' + LONG + b'"}',
        b'{"a": [' + b"1, " * 30 + b"1]}",
        b'{"a": "\\"' + LONG + b'", "b": {"]": "}"}}',
        b"1" * 60,
        b'"' + LONG + b'"',
        b"[" * 30 + b"]" * 30,
    ],
)
def test_too_large(element: bytes) -> None:
    """An element over the limit is skipped and the next one counts."""
    exact = b'{"a": "' + b"y" * 31 + b'"}'
    for pieces in every_way(b"[" + exact + b"," + element + b",\n" + exact + b"," + element + b"]"):
        assert documents(JsonArray(40), pieces) == [exact, Gap.TOO_LARGE, exact, Gap.TOO_LARGE]


def test_wanted() -> None:
    """Of an element over the limit the wanted members follow the gap."""
    body = b'[{"image": "' + LONG + b'", "usage": {"a": 1}},\n[' + b"1," * 40 + b'1], {"a": 1}]'
    for pieces in every_way(body):
        assert documents(JsonArray(40, ["usage"]), pieces) == [
            Gap.TOO_LARGE,
            b'{"usage":{"a": 1}}',
            Gap.TOO_LARGE,
            b'{"a": 1}',
        ]


def test_depth() -> None:
    """Depth is no matter."""
    deep = b'{"a":' * 10_000 + b"[" * 10_000 + b"]" * 10_000 + b"}" * 10_000
    body = b"[" + deep + b"," + A + b"]"
    for size in (7, 1000, len(body)):
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        assert documents(JsonArray(len(deep)), pieces) == [deep, A]
        assert documents(JsonArray(1000), pieces) == [Gap.TOO_LARGE, A]


@pytest.mark.parametrize("part", [b'"x", ', b" ", b"1", b'"', b"\\", b"[", b"[]", b"{}"])
def test_memory(part: bytes) -> None:
    """A body of any length and shape takes no more memory than the limit allows."""
    chunk = part * (2000 // len(part))
    for start in (b"[", b'[{"a": [', b'[{"a": "'):
        assert peak_memory(JsonArray(10_000), [start, *[chunk] * 30]) < 50_000


def test_chunk_of_small_elements() -> None:
    """Time is linear in a chunk, however many elements there are in it: quadratic, this would time out."""
    for element in (b"[],", b"{},", b'"",', b'{"a":[]},'):
        body = b"[" + element * 100_000 + b"]"
        assert len(documents(JsonArray(1000), [body])) == 100_000
