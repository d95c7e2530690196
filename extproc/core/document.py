"""JSON documents: the few members that are wanted, decoded; and places in them.

The top-level members that the wanted places are in are cut out undecoded first and decoded one by one: what is not
wanted (prompts, answers, vectors) is skipped without building a single object, a broken member does not spoil the
others, and documents cost the same whether they came whole or skimmed. Measured against whole-document decoding:
docs/decisions/0003-json.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from extproc.core.place import Steps, steps, values
from extproc.core.skim import Skimmer

__all__ = ["Document", "Reader", "Steps", "count", "steps", "text", "values"]

Document = Mapping[str, object]
"""The decoded members of a JSON object."""

_decode = msgspec.json.Decoder().decode


class Reader:
    """Decodes the members of JSON objects that the wanted places are in."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self.wanted = tuple(dict.fromkeys(wanted))
        """Places, each once."""
        names = dict.fromkeys(steps(place)[0] for place in self.wanted)
        members = msgspec.defstruct(
            "Members",
            [(f"m{i}", msgspec.Raw, msgspec.field(name=name, default=_ABSENT)) for i, name in enumerate(names)],
        )
        self._attributes = tuple((name, f"m{i}") for i, name in enumerate(names))
        self._members = msgspec.json.Decoder(members).decode

    def read(self, data: bytes) -> Document | None:
        """Return the members that are there and are valid JSON; `None` if `data` is no JSON object.

        At least what lies at the wanted places is in them, unless they are skimmed: then no more than that.
        """
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
