"""Places in JSON documents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.place import steps, values

TREE: Any = {"a": {"b": 1, "c": [{"d": 2}, {"e": 3}, 4, {"d": None}]}, "f": [[5, 6], [7]], "": 8, "g": {}}


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
def test_values(place: str, expected: list[object]) -> None:
    """A place yields what lies there, and nothing where the document has another shape."""
    assert list(values(TREE, steps(place))) == expected


NAMES = st.sampled_from(["model", "usage", "x"])
JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
)


@given(tree=JSON, path=st.lists(st.sampled_from(["model", "usage", "x", "[]"])))
def test_values_any_shape(tree: object, path: list[str]) -> None:
    """No shape makes it raise."""
    list(values(tree, tuple(path)))
