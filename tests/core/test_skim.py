"""Long documents, reduced to what lies at the places that are wanted."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.place import Found, pick, steps, tree
from extproc.core.skim import ARRAY, MEMBER, Skimmer
from tests import cuts
from tests.cuts import every_way

WANTED = ("model", "usage", "")
WANTED_BELOW = (*WANTED, "a[].b", "a[].b.model", "a[].b[].model", "a.model")


def skim(pieces: Iterable[bytes], wanted: Iterable[str] = WANTED) -> Skimmer:
    """Feed a document to its end."""
    skimmer = Skimmer(tuple(wanted))
    for piece in pieces:
        skimmer.feed(piece)
    return skimmer


def loads(members: Iterable[tuple[str, bytes]]) -> dict[str, object]:
    """Decode the members one by one."""
    return {name: json.loads(value) for name, value in members}


STRINGS = {
    "plain": b'"gpt"',
    "empty": b'""',
    "quote": rb'"a\"b"',
    "backslash at the end": rb'"a\\"',
    "backslash and quote": rb'"a\\\"b"',
    "many backslashes": b'"' + rb"\\" * 20 + rb'\""',
    "structure": rb'"}],{[:\","',
    "unicode": '"\u4f60\U0001f600"'.encode(),
    "escaped unicode": rb'"\u4f60\ud83d\ude00"',
    "half an emoji": rb'"\ud83d"',
    "looks like a member": rb'"\"model\": 1"',
}
VALUES = {
    **STRINGS,
    "number": b"-1.5e3",
    "null": b"null",
    "empty object": b"{}",
    "empty array": b"[ ]",
    "nested": b'{"usage": [1, {"model": "}]"}], "a": {"b": [[]]}}',
    "array": b'["a", ["b"], {"c": "]"}]',
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("other", [b"1", b'"a\\"b"', b'{"model": {"usage": ["}"]}}', b"[[[]]]"])
def test_members(value: bytes, other: bytes) -> None:
    """Wanted members are found at the top level and nowhere else, whatever they are and however they are cut."""
    for document in (
        b'{"x": ' + other + b', "model": ' + value + b', "y": ' + other + b"}",
        b'{"model":' + value + b',"y":' + other + b"}",
        b'\n{\n\t"x" : ' + other + b' ,\r\n "model" \n: ' + value + b"\n}\n",
    ):
        for pieces in every_way(document):
            skimmer = skim(pieces)
            assert skimmer.complete
            assert loads(skimmer.members()) == {"model": json.loads(value)}
            assert json.loads(skimmer.document()) == {"model": json.loads(value)}


KEYS = st.sampled_from([*WANTED, "x", "models", "usage ", 'us"age', "us\\age", "\u4f60", "{", "k" * 300]) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
)
SPACES = st.sampled_from(["", " ", "\n\t", "\r\n" * 200])


@given(
    members=st.lists(st.tuples(KEYS, JSON, SPACES), max_size=6),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 2]),
    places=cuts.places,
)
def test_random(
    members: list[tuple[str, object, str]], *, ascii_only: bool, indent: int | None, places: list[float]
) -> None:
    """Any object has the members that another decoder finds in it; of several with one name, the last."""
    encode = json.JSONEncoder(ensure_ascii=ascii_only, indent=indent).encode
    parts = [f"{space}{encode(key)}{space[:2]}:{encode(value)}" for key, value, space in members]
    document = "{" + ",".join(parts) + "}"
    expected = {name: value for name, value in json.loads(document).items() if name in WANTED}
    body = document.encode(errors="surrogatepass")
    skimmer = skim(cuts.at(places, body))
    assert skimmer.complete
    assert loads(skimmer.members()) == expected
    assert json.loads(skimmer.document()) == expected


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"   ",
        b"{",
        b'{"model"',
        b'{"model": "m',
        b'{"model": "m"',
        b'{"model": "m",',
        b'{"model": "m\\"}',
        b'{"a": [}',
    ],
)
def test_incomplete(document: bytes) -> None:
    """An object without its end is not complete."""
    for pieces in every_way(document):
        assert not skim(pieces).complete


def test_members_so_far() -> None:
    """The members whose values have ended are known before the document ends, and no others."""
    document = b'{"model": "m", "x": 1, "usage": {"a": 1}, "y": 2}'
    for end in range(len(document)):
        skimmer = skim([document[:end]])
        known = loads(skimmer.members())
        assert ("model" in known) == (end > document.index(b","))
        assert ("usage" in known) == (end > document.index(b"},") + 1)
        assert json.loads(skimmer.document()) == known


@pytest.mark.parametrize(
    "document", [b"[]", b'[{"model": "m"}]', b'"model"', b'"{}"', b"null", b"1", b"}", b"]", b":,"]
)
def test_no_object(document: bytes) -> None:
    """What is no object has no members, and is no complete object."""
    for pieces in every_way(document):
        skimmer = skim(pieces)
        assert not skimmer.complete
        assert list(skimmer.members()) == []


def test_what_follows() -> None:
    """What follows the object is not looked at."""
    for pieces in every_way(b'{"model": 1} {"model": 2}'):
        assert loads(skim(pieces).members()) == {"model": 1}


def test_depth() -> None:
    """Depth is no matter, of what is wanted and of what is not."""
    deep = b"[" * 100_000 + b'{"a": "]"}' + b"]" * 100_000
    deeper = b'{"a":' * 20_000 + b"1" + b"}" * 20_000
    for other in (deep, deeper):
        document = b'{"x": ' + other + b', "usage": ' + deep[:50] + deep[-50:] + b', "y": ' + other + b', "model": 1}'
        for size in (7, 1000, len(document)):
            skimmer = skim(document[i : i + size] for i in range(0, len(document), size))
            assert skimmer.complete
            assert dict(skimmer.members())["model"].strip() == b"1"


def test_chunk_of_small_values() -> None:
    """Time is linear in a chunk, however many values there are in it: quadratic, this would time out."""
    for value in (b"[],", b'"x":{},'):
        document = b'{"model": 1, ' + value * 100_000 + b'"usage": 2}'
        assert loads(skim([document]).members())["model"] == 1
    for value in (b"1,", b"1 ", b":", b'"",', b'"" ', b'"', rb'"\"",', b"[],", b"[[]],", b"[", b"{},", b'{"n":[1,]},'):
        document = b'{"model": 1, "usage": [' + value * 100_000 + b'{"n": 2}]}'
        assert loads(skim([document], ["model", "usage[].n"]).members())["model"] == 1


@pytest.mark.parametrize(
    "long",
    [
        b'"' + b"x" * MEMBER + b'"',
        b"[" + b"1," * MEMBER + b"1]",
        b"1" * (MEMBER + 1),
        b'{"a": {"b": "' + b"x" * MEMBER + b'"}}',
    ],
    ids=["string", "array", "number", "object"],
)
def test_long_member(long: bytes) -> None:
    """A wanted member that is too long is let go, also if it was there before; others are not."""
    document = b'{"usage": 1, "model": 1, "model": ' + long + b', "": 2}'
    for size in (1000, len(document)):
        skimmer = skim(document[i : i + size] for i in range(0, len(document), size))
        assert skimmer.complete
        assert loads(skimmer.members()) == {"usage": 1, "": 2}


def test_longest_member() -> None:
    """A wanted member of the greatest length is kept."""
    value = b'"' + b"x" * (MEMBER - 2) + b'"'
    for document in (b'{"model":' + value + b"}", b'{"model":' + value + b',"x":1}'):
        for size in (1000, len(document)):
            [(name, kept)] = skim(document[i : i + size] for i in range(0, len(document), size)).members()
            assert (name, kept) == ("model", value)


@pytest.mark.parametrize("key", [b"k" * 300, b"model" + b" " * 300, b'\\"' * 200, b"\\\\" * 200])
def test_long_key(key: bytes) -> None:
    """A key of any length is none of the wanted, and does no harm."""
    for pieces in every_way(b'{"' + key + b'": 1, "model": 2, "' + key + b'": {"model": 3}}'):
        assert loads(skim(pieces).members()) == {"model": 2}


def test_memory() -> None:
    """A document of any length takes no more memory than its wanted members may."""
    chunk = b'[{"embedding": "' + b"x" * 10_000 + b'"}],' * 3
    skimmer = skim([b'{"model": "m", "' + b"k" * 1000, b'": 0, "usage": ['])
    tracemalloc.start()
    try:
        for _ in range(1000):
            skimmer.feed(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MEMBER


PLACES = {
    "in an object": (["a.b"], '{"a": {"x": 1, "b": 2, "a": {"b": 3}}, "b": 4}', '{"a":{"b":2}}'),
    "not there": (["a.b"], '{"a": {"x": 1}, "b": 4}', "{}"),
    "other shapes": (["a.b", "b.b", "x[].b"], '{"a": 1, "b": [{"b": 2}], "x": {"b": 3}}', "{}"),
    "whole": (["a.b"], '{"a": {"b": {"x": [{"b": "]"}]}}}', '{"a":{"b":{"x": [{"b": "]"}]}}}'),
    "in an array": (
        ["a[].b"],
        '{"a": [{"b": 1, "x": 2}, 3, "{", [{"b": 4}], {}, {"b": 5}]}',
        '{"a":[{"b":1},{"b":5}]}',
    ),
    "elements": (["a[]"], '{"a": [1 , "]", {"b": 2}, [ ]]}', '{"a":[1,"]",{"b": 2},[ ]]}'),
    "elements, and in them": (["a[]", "a[].b"], '{"a": [{"b": 1, "x": 2}, 3, {"x": 4}]}', '{"a":[{"b":1},3,{}]}'),
    "an object, and in it": (["a", "a.b"], '{"a": {"x": 1}}', '{"a":{}}'),
    "an object, or in an array": (["a", "a[].b"], '{"a": {"x": 1}}', '{"a":{"x": 1}}'),
    "no elements": (["a[]"], '{"a": [ ]}', "{}"),
    "arrays of arrays": (
        ["a[][].b"],
        '{"a": [[{"b": 1}, 2], 3, [4, 5], [[]], [{"b": 6}]]}',
        '{"a":[[{"b":1}],[{"b":6}]]}',
    ),
    "twice": (["a.b"], '{"a": {"b": 1}, "x": 0, "a": {"b": 2, "b": 3}}', '{"a":{"b":3}}'),
    "gone the second time": (["a.b"], '{"a": {"b": 1}, "a": {"x": 2}}', "{}"),
    "no name": (["a.", "[]"], '{"a": {"": 1}, "": [2], "[]": 3}', '{"a":{"":1},"":[2]}'),
}


@pytest.mark.parametrize(("places", "document", "reduced"), PLACES.values(), ids=PLACES.keys())
def test_places(places: list[str], document: str, reduced: str) -> None:
    """What lies at wanted places is kept, whatever is around it, and nothing but this."""
    for pieces in every_way(document.encode()):
        skimmer = skim(pieces, places)
        assert skimmer.complete
        assert skimmer.document() == reduced.encode()


NAMES = ["a", "b", ""]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


def written_object(members: list[tuple[str, str]], space: str) -> str:
    """Write an object, with its names as often as they come."""
    return "{" + ",".join(f'{space}"{name}"{space}:{space}{value}{space}' for name, value in members) + "}"


def written_array(elements: list[str], space: str) -> str:
    """Write an array."""
    return "[" + ",".join(f"{space}{element}{space}" for element in elements) + "]"


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draw objects."""
    names = st.sampled_from([*NAMES, "x", "[]", "a.b", 'a\\"'])
    return st.builds(written_object, st.lists(st.tuples(names, inner), max_size=4), st.sampled_from(["", " ", "\r\n"]))


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draw arrays."""
    return st.builds(written_array, st.lists(inner, max_size=4), st.sampled_from(["", " ", "\r\n"]))


STEPS = st.lists(st.sampled_from([*(f".{name}" for name in NAMES), "[]"]), max_size=3).map("".join)


@given(
    document=objects(st.recursive(SCALARS.map(json.dumps), lambda inner: objects(inner) | arrays(inner))),
    places=st.lists(st.builds(str.__add__, st.sampled_from(NAMES), STEPS)),
    cut=cuts.places,
)
def test_random_places(document: str, places: list[str], cut: list[float]) -> None:
    """At each wanted place lies what another decoder finds there; if others lie below it, they say what is in it."""
    paths = [steps(place) for place in places]
    body = document.encode()
    for pieces in (cuts.at(cut, body), cuts.bytewise(body)):
        skimmer = skim(pieces, places)
        assert skimmer.complete
        for place, path in zip(places, paths, strict=True):
            found, expected = (lying(json.loads(text), place) for text in (skimmer.document(), document))
            if any(other[: len(path)] == path != other for other in paths):
                found, expected = ([hollow(value) for value in side] for side in (found, expected))
            assert found == expected


def lying(document: object, place: str) -> list[object]:
    """Return what lies at a place."""
    found: Found = {}
    pick(document, tree((place,)), found)
    return found.get(place, [])


def hollow(value: object) -> object:
    """Return a value without what is in it."""
    return type(value) if isinstance(value, dict | list) else value


@pytest.mark.parametrize(
    "long", [b'"' + b"x" * MEMBER + b'"', b"[" + b"1," * MEMBER + b"1]", b"1" * (MEMBER + 1)], ids=["text", "list", "1"]
)
def test_long_value(long: bytes) -> None:
    """A value that is too long is let go at any depth; what is around it may be longer than that."""
    document = (
        b'{"a": {"x": ' + long + b', "b": [{"c": ' + long + b', "d": 1}, {"d": 2, "c": 3}, ' + long + b', {"c": 4}]}}'
    )
    for size in (1000, len(document)):
        skimmer = skim((document[i : i + size] for i in range(0, len(document), size)), ["a.b[].c", "a.b[].d"])
        assert skimmer.complete
        assert json.loads(skimmer.document()) == {"a": {"b": [{"d": 1}, {"d": 2, "c": 3}, {"c": 4}]}}


@pytest.mark.parametrize(("start", "end"), [(b'{"a": [', b"]}"), (b'{"a": [[{"b": 1}], [', b"]]}")])
def test_long_array(start: bytes, end: bytes) -> None:
    """Of an array, all is kept that is wanted, or the document is not complete: a sum is never of a part."""
    size = 1024
    value = b'{"b":"' + b"x" * (size - len(b'{"b":""},')) + b'"}'
    fitting = ARRAY // size - (start.count(b"[") > 1)
    places = ["a[].b", "a[][].b"]
    for more, where in ((0, b","), (1, b","), (1, b' , 1, {"x": 1}, ')):
        document = start + where.join([value] * (fitting + more)) + end
        for piece in (10_000, len(document)):
            skimmer = skim((document[i : i + piece] for i in range(0, len(document), piece)), places)
            assert (skimmer.complete, skimmer.too_large) == ((False, True) if more else (True, False))
    assert len(skimmer.document()) < size


def test_memory_of_arrays() -> None:
    """An array of any length takes no more memory than may be kept of it."""
    skimmer = skim([b'{"a": ['], ["a[].b"])
    chunk = (b'{"b": "' + b"x" * 100 + b'", "c": [2, 3]},') * 100
    tracemalloc.start()
    try:
        for _ in range(3 * ARRAY // len(chunk)):
            skimmer.feed(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert skimmer.too_large
    assert peak < 3 * ARRAY


GARBAGE = [b"{", b"}", b"[", b"]", b'"', b"\\", b":", b",", b'"model"', b'{"model":', b"1", b" ", b"\xff", b"\0"]


@given(body=st.lists(st.sampled_from(GARBAGE) | st.binary(max_size=3)).map(b"".join), places=cuts.places)
def test_never_raises(body: bytes, places: list[float]) -> None:
    """No bytes make it raise, and no cut changes what it finds."""
    for document in (body, b"{" + body, b'{"model":' + body + b"}", b'{"a":[{"b":' + body + b"}]}"):
        whole, cut = (skim(pieces, WANTED_BELOW) for pieces in ([document], cuts.at(places, document)))
        assert (cut.complete, cut.document()) == (whole.complete, whole.document())
        assert dict(cut.members()) == dict(whole.members())
