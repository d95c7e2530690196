"""JSON documents: the few members that are wanted, decoded; and places in them.

The wanted top-level members are cut out undecoded first and decoded one by one: what is not wanted (prompts, answers,
vectors) is skipped without building a single object, a broken member does not spoil the others, and documents cost the
same whether they came whole or skimmed. Measured against whole-document decoding: docs/decisions/0003-json.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from extproc.core.skim import Skimmer

Document = Mapping[str, object]
"""The decoded members of a JSON object."""

Steps = tuple[str, ...]

_decode = msgspec.json.Decoder().decode


class Reader:
    """Decodes the named members of JSON objects."""

    def __init__(self, wanted: Collection[str]) -> None:
        self.wanted = tuple(wanted)
        members = msgspec.defstruct(
            "Members",
            [(f"m{i}", msgspec.Raw, msgspec.field(name=name, default=_ABSENT)) for i, name in enumerate(self.wanted)],
        )
        self._attributes = tuple((name, f"m{i}") for i, name in enumerate(self.wanted))
        self._members = msgspec.json.Decoder(members).decode

    def read(self, data: bytes) -> Document | None:
        """Return the wanted members that are there and are valid JSON; `None` if `data` is no JSON object."""
        try:
            members = self._members(data)
        except (msgspec.MsgspecError, RecursionError):
            return self._read_leniently(data)
        raw = ((name, getattr(members, attribute)) for name, attribute in self._attributes)
        return _decoded((name, value) for name, value in raw if value is not _ABSENT)

    def _read_leniently(self, data: bytes) -> Document | None:
        # Deltas cut between the two halves of an emoji, and depth beyond the decoder's, are valid by the grammar.
        skimmer = Skimmer(self.wanted)
        skimmer.feed(data)
        return _decoded(skimmer.members()) if skimmer.complete else None


def _decoded(members: Iterable[tuple[str, bytes | msgspec.Raw]]) -> Document:
    document: dict[str, object] = {}
    for name, raw in members:
        try:
            document[name] = _decode(raw)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            continue
    return document


_ABSENT = msgspec.Raw(b"")


def steps(place: str) -> Steps:
    """Split a place (`choices[].delta.content`) into its steps."""
    return tuple(place.replace("[]", ".[]").split("."))


def values(node: object, path: Steps) -> Iterator[object]:
    """Yield what lies at a place; nothing where the document has another shape."""
    for position, step in enumerate(path):
        if step == "[]":
            if isinstance(node, list):
                for element in node:
                    yield from values(element, path[position + 1 :])
            return
        if not isinstance(node, dict) or step not in node:
            return
        node = node[step]
    yield node


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
