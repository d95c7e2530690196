"""Places in JSON documents: `choices[].delta.content`, what lies at one, and the tree that several of them make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

Steps = tuple[str, ...]


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


@dataclass(slots=True)
class Wanted:
    """What is wanted of a value."""

    itself: bool = False
    """Whether its place is one of those asked for; if not, it only leads to some of them."""
    members: dict[bytes, Wanted] = field(default_factory=dict)
    """By their names in quotes, as they stand in a document."""
    element: Wanted | None = None
    """Of each element of an array."""


@lru_cache(maxsize=1024)  # a few for each format, and a tree is never changed
def tree(places: tuple[str, ...]) -> Wanted:
    """Return what is wanted of a document, if it is these places."""
    root = Wanted()
    for place in places:
        node = root
        for step in steps(place):
            if step == "[]":
                node.element = node.element or Wanted()
                node = node.element
            else:
                node = node.members.setdefault(b'"' + step.encode() + b'"', Wanted())
        node.itself = True
    return root
