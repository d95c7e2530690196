"""YAML that people read: short things on one line, and a comment before what needs one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

_WIDTH = 120  # of what is written on one line
_COMMENT_WIDTH = 118


@dataclass(frozen=True)
class Noted:
    """A value with a comment of any length, in paragraphs separated by newlines."""

    note: str
    value: Any


def noted(mapping: Mapping[str, Any], notes: Mapping[str, str]) -> dict[str, Any]:
    """Return a mapping with comments at some of its keys.

    Raises:
        KeyError: a note is for a key that is not there.
    """
    return {**mapping, **{key: Noted(note, mapping[key]) for key, note in notes.items()}}


def text(document: Mapping[str, Any]) -> str:
    """Return a document as YAML; mappings and lists that are short and shallow are written on one line.

    Strings are of one line.
    """
    return "".join(f"{line}\n" for line in _block(document, 0))


def comment(note: str, indent: int = 0) -> str:
    """Return a text as comment lines; every newline begins a line, and an empty line stays empty."""
    return "".join(f"{line}\n" for line in _comment(note, indent))


def _comment(note: str, indent: int) -> Iterator[str]:
    margin = " " * indent
    for paragraph in note.split("\n"):
        start = len(paragraph) - len(paragraph.lstrip())
        lines = textwrap.wrap(
            paragraph,
            _COMMENT_WIDTH - indent - 2,
            subsequent_indent=" " * start,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines or [""]:
            yield f"{margin}# {line}".rstrip()


def _block(value: Mapping[str, Any] | Sequence[Any], indent: int) -> Iterator[str]:
    members = value.items() if isinstance(value, Mapping) else ((None, member) for member in value)
    for key, member in members:
        note, content = (member.note, member.value) if isinstance(member, Noted) else ("", member)
        if note:
            yield from _comment(note, indent)
        margin = " " * indent
        start = "-" if key is None else f"{_flow(key)}:"
        if _is_short(content, indent + len(start)):
            yield f"{margin}{start} {_flow(content)}"
        elif key is not None:
            yield f"{margin}{start}"
            yield from _block(content, indent if isinstance(content, list) else indent + 2)
        else:
            lines = list(_block(content, indent + 2))
            first = next(number for number, line in enumerate(lines) if not line.lstrip().startswith("#"))
            yield from (line[2:] for line in lines[:first])
            yield f"{margin}- {lines[first][indent + 2 :]}"
            yield from lines[first + 1 :]


def _flow(value: Any) -> str:  # noqa: ANN401
    match value:
        case Mapping():
            return "{" + ", ".join(f"{_flow(key)}: {_flow(member)}" for key, member in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_flow, value)) + "]"
        case _:
            return _scalar(value, type(value).__name__)


@cache
def _scalar(value: Any, kind: str) -> str:  # noqa: ANN401, ARG001 - `kind` tells 1 from True
    # In a list, so that it is quoted if it must be there.
    dumped: str = yaml.safe_dump([value], default_flow_style=True, width=10_000, allow_unicode=True)[1:-2]
    simple = dumped.startswith("'") and value.isprintable() and not {'"', "\\"} & set(value)
    return f'"{value}"' if simple else dumped


def _is_short(value: Any, used: int) -> bool:  # noqa: ANN401
    if not isinstance(value, Mapping | list) or not value:
        return True
    return _depth(value) <= 2 and used + len(_flow(value)) < _WIDTH  # noqa: PLR2004


def _depth(value: Any) -> int:  # noqa: ANN401
    """Return how deep a value is nested; a comment counts as too deep."""
    match value:
        case Noted():
            return 99
        case Mapping():
            return 1 + max(map(_depth, value.values()), default=0)
        case list():
            return 1 + max(map(_depth, value), default=0)
        case _:
            return 0
