"""JSON documents: what is wanted of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.document import Reader, count, text

DEEP = b"[" * 100_000 + b"]" * 100_000
HUGE = b"9" * 5000

MODEL = {"model": "m"}
DOCUMENTS = {
    "whole": (b'{"model": "m", "usage": {"a": 1}}', {"model": "m", "usage": {"a": 1}}),
    "nothing wanted": (b'{"a": 1}', {}),
    "empty": (b"{}", {}),
    "null": (b'{"model": "m", "usage": null}', {"model": "m", "usage": None}),
    "twice": (b'{"model": "a", "model": "m"}', MODEL),
    "name in escapes": (b'{"mod\\u0065l": "m"}', MODEL),
    "bom": (b'\xef\xbb\xbf{"model": "m"}', MODEL),
    "white space": (b' \r\n\t{ "model" : "m" }\n', MODEL),
    "something behind": (b'{"model": "m"} x', MODEL),
    "half an emoji elsewhere": (b'{"delta": "\\ud83d", "model": "m"}', MODEL),
    "half an emoji in one": (b'{"usage": "\\ud83d", "model": "m"}', MODEL),
    "broken UTF-8 elsewhere": (b'{"delta": "\xc3", "\xff": 1, "model": "m"}', MODEL),
    "broken UTF-8 in one": (b'{"usage": {"\xff": 1}, "model": "m"}', MODEL),
    "number beyond doubles": (b'{"usage": {"a": 1e400}, "model": "m"}', MODEL),
    "number of 5,000 digits": (b'{"usage": {"a": ' + HUGE + b'}, "model": "m"}', MODEL),
    "depth elsewhere": (b'{"x": ' + DEEP + b', "model": "m"}', MODEL),
    "depth in one": (b'{"usage": ' + DEEP + b', "model": "m"}', MODEL),
    "no JSON in one": (b'{"usage": {"a": NaN}, "model": "m"}', MODEL),
    "no value in one": (b'{"usage": , "model": "m"}', MODEL),
}


def each_once(members: dict[str, object]) -> dict[str, list[object]]:
    """Return members as what lies at their places."""
    return {name: [value] for name, value in members.items()}


@pytest.mark.parametrize(("data", "expected"), DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_read(data: bytes, expected: dict[str, object]) -> None:
    """The wanted members that are valid are read, whatever is wrong elsewhere."""
    assert Reader(["model", "usage", "other"]).read(data) == each_once(expected)


HALF_EMOJI = {
    "beside it": (b'{"a": {"x": "\\ud83d", "b": 2}}', {"a.b": [2]}),
    "beside it in an array": (b'{"c": [{"x": "\\ud83d", "d": 1}, {"d": 2}]}', {"c[].d": [1, 2]}),
    "in a place": (b'{"a": {"b": "\\ud83d"}, "c": [{"d": 1}]}', {"c[].d": [1]}),
    "in an element": (b'{"a": {"b": 2}, "c": [{"d": 1}, {"d": "\\ud83d"}]}', {"a.b": [2]}),
}


@pytest.mark.parametrize(("data", "expected"), HALF_EMOJI.values(), ids=HALF_EMOJI.keys())
def test_read_places(data: bytes, expected: dict[str, list[object]]) -> None:
    """What lies at a place is read whatever is beside it, and no array without some of its elements."""
    assert Reader(["a.b", "c[].d"]).read(data) == expected


@pytest.mark.parametrize(
    "member",
    [
        b'"a": 1 {"b": 2}',
        b'"a": {"b": 2} 1',
        b'"a": {"b": 2} {"b": 3}',
        b'"a": {"x": 2} {"b": 3}',
        b'"a" {"b": 2}',
        b'"a": {"b" 2}',
        b'"a": {"b": }',
        b'"c": [{"d": 1} {"d": 2}]',
        b'"c": [{"d": 1} 2]',
        b'"c": [1 {"d": 1}]',
        b'"c": ["" {"d": 1}]',
        b'"c": [[] {"d": 1}]',
        b'"c": [{} {"d": 1}]',
        b'"c": [{"d": 1}: 2]',
    ],
)
def test_read_broken_member(member: bytes) -> None:
    """Nothing is read out of what is not JSON, and what is beside it is."""
    data = b'{"model": "m", ' + member + b', "x": 1}'
    assert Reader(["a.b", "c[].d", "model"]).read(data) == {"model": ["m"]}


@pytest.mark.parametrize(
    "data", [b'{"a": {"b": 2]}', b'{"c": [{"d": 1}}]}', b'{"a": {"b": 2}, "c": [{"d": 1}, {"d": 2]]}']
)
def test_read_broken_brackets(data: bytes) -> None:
    """Brackets of two kinds that do not fit make no document."""
    assert Reader(["a.b", "c[].d"]).read(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"null",
        b"1",
        b'"model"',
        b"[]",
        b'[{"model": "m"}]',
        b"{",
        b'{"model": "m"',
        b"Bad Gateway",
        b"\xff",
        DEEP,
    ],
)
def test_no_object(data: bytes) -> None:
    """What is no JSON object is no document."""
    assert Reader(["model"]).read(data) is None


NAMES = st.sampled_from(["model", "usage", "x"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
)


@given(document=st.dictionaries(NAMES | st.text(), JSON, max_size=5))
def test_read_random(document: dict[str, object]) -> None:
    """Members are what another decoder says they are, the lenient way too."""
    expected = each_once({name: value for name, value in document.items() if name in ("model", "usage")})
    data = json.dumps(document).encode()
    reader = Reader(["model", "usage"])
    assert reader.read(data) == expected
    assert reader.read(data + b" \xff") == expected


PARTS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b"\\ud83d",
    b":",
    b",",
    b'"model"',
    b'{"model":',
    b"1",
    b"e",
    b"\xc3",
    b"\0",
]


@given(st.lists(st.sampled_from(PARTS) | st.binary(max_size=3)).map(b"".join))
def test_read_never_raises(data: bytes) -> None:
    """No bytes make a reader raise."""
    for each in (data, b"{" + data + b"}", b'{"model":' + data + b"}"):
        document = Reader(["model"]).read(each)
        assert document is None or document.keys() <= {"model"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (7, 7),
        (2**53, 2**53),
        (7.0, 7),
        (0.0, 0),
        (-0.0, 0),
        ("7", 7),
        ("007", 7),
        (str(2**53), 2**53),
        (2**53 + 1, None),
        (str(2**53 + 1), None),
        ("0" * 17, None),
        ("9" * 5000, None),
        (1e300, None),
        (float("inf"), None),
        (float("nan"), None),
        (-1, None),
        (-1.0, None),
        (7.5, None),
        ("-7", None),
        ("+7", None),
        ("7.0", None),
        (" 7", None),
        ("", None),
        ("7_0", None),
        ("\u0667", None),
        ("\u00b2", None),
        (True, None),
        (False, None),
        (None, None),
        ([7], None),
        ({"a": 7}, None),
    ],
)
def test_count(value: object, expected: int | None) -> None:
    """Only a whole number that a double holds exactly is a count, and what is none is not 0."""
    found = count(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gpt-4", "gpt-4"),
        (" ", " "),
        ("", None),
        (None, None),
        (4, None),
        (True, None),
        (["m"], None),
        ({"m": 1}, None),
    ],
)
def test_text(value: object, expected: str | None) -> None:
    """Only a string that is not empty is a name; `null` is no name."""
    assert text(value) == expected
