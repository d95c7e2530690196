"""Places in JSON documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.place import Found, pick, tree

TREE: Any = {"a": {"b": 1, "c": [{"d": 2}, {"e": 3}, 4, {"d": None}]}, "f": [[5, 6], [7]], "": 8, "g": {}}


def found_in(document: object, places: Iterable[str]) -> Found:
    """Return what lies at some places."""
    found: Found = {}
    pick(document, tree(tuple(places)), found)
    return found


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("a.b", [1]),
        ("a", [TREE["a"]]),
        ("a.c[].d", [2, None]),
        ("a.c[]", TREE["a"]["c"]),
        ("a.c", [TREE["a"]["c"]]),
        ("f[][]", [5, 6, 7]),
        ("f[]", [[5, 6], [7]]),
        ("g", [{}]),
        ("x", []),
        ("a.x", []),
        ("a.b.x", []),
        ("a[]", []),
        ("a.c.d", []),
        ("f[].a", []),
        ("", [8]),
    ],
)
def test_pick(place: str, expected: list[object]) -> None:
    """What lies at a place is found, alone and beside others, and nothing where the document has another shape."""
    for places in ((place,), (place, "a", "a.c[]"), ("a.c[].d", "f[][]", place)):
        assert found_in(TREE, places).get(place, []) == expected


NAMES = st.sampled_from(["model", "usage", "x"])
JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
)


@given(document=JSON, places=st.lists(st.lists(st.sampled_from(["model", "usage", "[]"]), min_size=1).map(".".join)))
def test_pick_any_shape(document: object, places: list[str]) -> None:
    """No shape makes it raise, and where nothing lies there is no place."""
    assert all(found_in(document, places).values())
