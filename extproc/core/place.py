"""Places in JSON documents: `choices[].delta.content`, the tree that several of them make, and what lies at them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

Steps = tuple[str, ...]


def steps(place: str) -> Steps:
    """Split a place (`choices[].delta.content`) into its steps."""
    return tuple(place.replace("[]", ".[]").split("."))


Found = dict[str, list[object]]
"""What lies at places, by the place: one value, or of a place in an array one of each element that has it."""


@dataclass(slots=True)
class Wanted:
    """What is wanted of a value."""

    place: str | None = None
    """Its place, if it is one of those asked for; if not, it only leads to some of them."""
    members: dict[str, Wanted] = field(default_factory=dict)
    quoted: dict[bytes, Wanted] = field(default_factory=dict)
    """The members by their names in quotes, as they stand in a document."""
    element: Wanted | None = None
    """Of each element of an array."""
    leads: bool = False
    """Whether something is wanted of what is in it."""


@lru_cache(maxsize=1024)  # a few for each format, and a tree is never changed
def tree(places: tuple[str, ...]) -> Wanted:
    """Return what is wanted of a document, if it is these places."""
    root = Wanted()
    for place in places:
        node = root
        for step in steps(place):
            node.leads = True
            if step == "[]":
                inner = node.element or Wanted()
                node.element = inner
            else:
                inner = node.members.setdefault(step, Wanted())
                node.quoted[b'"' + step.encode() + b'"'] = inner
            node = inner
        node.place = place
    return root


def pick(value: object, wanted: Wanted, found: Found) -> None:
    """Add what lies inside of a value at the wanted places; nothing where it has another shape."""
    if isinstance(value, dict):
        for name, inner in wanted.members.items():
            if name in value:
                member = value[name]
                if inner.place is not None:
                    found.setdefault(inner.place, []).append(member)
                if inner.leads:
                    pick(member, inner, found)
    elif isinstance(value, list) and (each := wanted.element) is not None:
        if each.place is not None and value:
            found.setdefault(each.place, []).extend(value)
        if each.leads:
            for element in value:
                pick(element, each, found)
