"""Ways to cut a body in pieces, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import strategies as st


def bytewise(body: bytes) -> list[bytes]:
    """Cut a body into its bytes."""
    return [body[i : i + 1] for i in range(len(body))]


def in_two(body: bytes) -> list[list[bytes]]:
    """Cut a body in two in every way there is, also with nothing on one side."""
    return [[body[:cut], body[cut:]] for cut in range(len(body) + 1)]


def every_way(body: bytes) -> list[list[bytes]]:
    """Return a body whole, byte by byte, and in two in every way there is."""
    return [[body], bytewise(body), *in_two(body)]


def at(places: Iterable[float], body: bytes) -> list[bytes]:
    """Cut a body at places between 0, its beginning, and 1, its end."""
    cuts = [0, *sorted(int(place * len(body)) for place in places), len(body)]
    return [body[a:b] for a, b in pairwise(cuts)]


places = st.lists(st.floats(0, 1), max_size=12)
"""Draws places to cut `at`."""
