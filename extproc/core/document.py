"""JSON documents: what lies at the few places that are wanted.

A document is decoded once, by types that are made of the wanted places, so that what is not wanted (prompts, answers,
vectors) is passed over without building a single object. What the decoder refuses is skimmed: a broken member does not
spoil the others. Measured against whole-document decoding: docs/decisions/0003-json.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypedDict

import msgspec

from extproc.core.place import Found, Wanted, pick, tree
from extproc.core.skim import Skimmer

__all__ = ["Document", "Reader", "count", "text"]

Document = Found
"""What lies at the wanted places of a JSON object, by the place. Places without a value are not in it."""

_REFUSED = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)

_decode = msgspec.json.Decoder().decode


class Reader:
    """Reads what lies at some places of JSON objects."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self.wanted = tuple(dict.fromkeys(wanted))
        """Places, each once."""
        self._tree = tree(self.wanted)
        self._members: Callable[[bytes], object] = msgspec.json.Decoder(_members(self._tree)).decode

    def read(self, data: bytes) -> Document | None:
        """Return what lies at the wanted places and is valid JSON; `None` if `data` is no JSON object."""
        try:
            members = self._members(data)
        except _REFUSED:
            members = self._read_leniently(data)
            if members is None:
                return None
        found: Found = {}
        pick(members, self._tree, found)
        return found

    def _read_leniently(self, data: bytes) -> dict[str, object] | None:
        # Deltas cut between the two halves of an emoji, and depth beyond the decoder's, are valid by the grammar.
        skimmer = Skimmer(self.wanted)
        skimmer.feed(data)
        if not skimmer.complete:
            return None
        members: dict[str, object] = {}
        for name, raw in skimmer.members():
            try:
                members[name] = _decode(raw)
            except _REFUSED:
                continue
        return members


def _members(wanted: Wanted) -> type:
    """Return the type of an object of which only some members are decoded."""
    members = {name: _value(member) for name, member in wanted.members.items()}
    return TypedDict("Members", members, total=False)  # type: ignore[operator, no-any-return]


def _value(wanted: Wanted) -> object:
    """Return the type of any value, in which as little as is wanted is decoded of objects and arrays."""
    if wanted.place is not None:
        return Any
    element = Any if wanted.element is None else _value(wanted.element)
    return _members(wanted) | list[element] | str | int | float | bool | None  # type: ignore[valid-type]


def count(value: object) -> int | None:
    """Read a token count: a whole number from 0 to 2^53, also written as a float or in digits; else `None`."""
    match value:
        case bool():
            return None
        case int():
            number = value
        case float() if value.is_integer():
            number = int(value)
        case str() if value.isascii() and value.isdigit() and len(value) <= _DIGITS:
            number = int(value)
        case _:
            return None
    return number if 0 <= number <= _EXACT else None


_EXACT = 2**53
"""Metadata and samples are doubles: beyond this they would not be exact."""
_DIGITS = len(str(_EXACT))


def text(value: object) -> str | None:
    """Read a name: a string that is not empty; else `None`."""
    return value if isinstance(value, str) and value else None
