r"""Formats that the configuration file declares.

    formats:
    - like: openai/chat_completions      # a format that there is, at another path or host
      host: llm\.internal
      path: /ask
    - provider: acme                     # a new one
      api: talk
      path: /v3/talk
      usage:
        input_tokens: usage.fresh + usage.from_cache | meta.from_cache
        output_tokens: usage.written
      content: delta.text | delta.tools[]

`path` and `host` are regular expressions for the whole of it; a count is a sum (`+`) of places with alternatives (`|`).
What the keys mean is said in extproc/core/format.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import yaml

from extproc.core.facts import Usage
from extproc.core.format import Format, Places, Sum

_PLACE = re.compile(r"(@[-\w]+|[^\s.\[\]|+]+(\[\])?(\.[^\s.\[\]|+]+(\[\])?)*)")
_COUNTS = Usage._fields
_REQUIRED = ("provider", "api", "path", "usage")


class DeclarationError(ValueError):
    """A declaration that cannot be used: what is wrong, and what is allowed."""

    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(message)
        self.line: int = node.start_mark.line + 1
        """Of the file, from 1."""


def declared(node: yaml.Node, known: Sequence[Format]) -> tuple[Format, ...]:
    """Read the value of the key `formats`; `known` are the formats that `like` may name.

    Raises:
        DeclarationError: it is not that.
    """
    if not isinstance(node, yaml.SequenceNode):
        raise DeclarationError(node, "formats: a list is expected")
    return tuple(_format(item, {f"{each.provider}/{each.api}": each for each in known}) for item in node.value)


def _format(node: yaml.Node, known: dict[str, Format]) -> Format:
    if not isinstance(node, yaml.MappingNode):
        raise DeclarationError(node, "formats: each entry is a mapping")
    given: dict[str, Any] = {}
    like: Format | None = None
    for key, value in node.value:
        if key.value in given:
            raise DeclarationError(key, f"{key.value} is set twice")
        if key.value == "like":
            if (name := _text(value)) not in known:
                raise DeclarationError(value, f"like: {name} is no format; there are {', '.join(known)}")
            like = known[name]
        elif key.value in _KEYS:
            given[key.value] = _KEYS[key.value](value)
        else:
            raise DeclarationError(key, f"{key.value} is not known; known: like, {', '.join(_KEYS)}")
    if like is not None:
        return replace(like, **given)
    if missing := [name for name in _REQUIRED if name not in given]:
        raise DeclarationError(node, f"missing: {', '.join(missing)}, or `like` and a format to take them from")
    return Format(**{"operation": "chat", **given})


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise DeclarationError(node, "a text is expected")
    return str(node.value)


def _pattern(node: yaml.Node) -> str:
    text = _text(node)
    try:
        re.compile(text)
    except re.error as error:
        raise DeclarationError(node, f"{text!r} is no regular expression: {error}") from None
    return text


def _place(node: yaml.Node) -> str:
    (place,) = found if len(found := _places(node)) == 1 else _refuse(node, "one place is expected")
    return place


def _refuse(node: yaml.Node, message: str) -> Places:
    raise DeclarationError(node, message)


def _places(node: yaml.Node) -> Places:
    return _alternatives(node, _text(node))


def _alternatives(node: yaml.Node, text: str) -> Places:
    places = tuple(place.strip() for place in text.split("|"))
    for place in places:
        if not _PLACE.fullmatch(place):
            raise DeclarationError(node, f"{place!r} is no place: names with dots, `[]` after an array; @header-name")
    return places


def _usage(node: yaml.Node) -> dict[str, Sum]:
    if not isinstance(node, yaml.MappingNode):
        raise DeclarationError(node, f"usage: a mapping is expected, with {', '.join(_COUNTS)}")
    counts: dict[str, Sum] = {}
    for key, value in node.value:
        if key.value not in _COUNTS:
            raise DeclarationError(key, f"{key.value} is no count; known: {', '.join(_COUNTS)}")
        counts[key.value] = tuple(_alternatives(value, term) for term in _text(value).split("+"))
    return counts


def _bytes(node: yaml.Node) -> bytes:
    return _text(node).encode()


_KEYS: dict[str, Callable[[yaml.Node], object]] = {
    "provider": _text,
    "api": _text,
    "operation": _text,
    "path": _pattern,
    "host": _pattern,
    "usage": _usage,
    "request_model": _places,
    "response_model": _places,
    "content": _places,
    "running": _place,
    "finish": _places,
    "done": _bytes,
    "error": _places,
}
