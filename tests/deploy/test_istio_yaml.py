from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extproc.config.document import Noted, noted, text

_PRINTABLE = st.characters(min_codepoint=32, categories=["L", "N", "P", "S", "Zs"])
_SCALARS = st.none() | st.booleans() | st.integers() | st.text(_PRINTABLE)
_NOTES = st.text(_PRINTABLE | st.just("\n"), min_size=1)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner | st.builds(Noted, _NOTES, inner))
        | st.dictionaries(st.text(_PRINTABLE, min_size=1), inner | st.builds(Noted, _NOTES, inner))
    ),
    max_leaves=8,
)


def bare(value: Any) -> Any:  # noqa: ANN401
    """Return a value without its comments."""
    match value:
        case Noted():
            return bare(value.value)
        case dict():
            return {key: bare(member) for key, member in value.items()}
        case list():
            return [bare(member) for member in value]
        case _:
            return value


@given(st.dictionaries(st.text(_PRINTABLE, min_size=1), _VALUES, min_size=1))
def test_what_is_written_is_what_is_read(document: dict[str, Any]) -> None:
    """Any document reads back as it was, whatever comments are in it."""
    assert yaml.safe_load(text(document)) == bare(document)


def test_comments_stand_before_what_they_are_about() -> None:
    """Short things are written on one line, and comments above, at the depth of the thing."""
    document = {"a": {"b": noted({"c": 1, "d": "x: y"}, {"d": "why"})}, "e": [Noted("one\n  two", {"f": "^1\\."})]}
    assert text(document) == ('a:\n  b:\n    c: 1\n    # why\n    d: "x: y"\ne:\n# one\n#   two\n' + "- {f: ^1\\.}\n")


def test_a_comment_is_about_something() -> None:
    """A comment for a key that is not there is a mistake."""
    with pytest.raises(KeyError):
        noted({}, {"a": "b"})
