"""Ways to cut a body in pieces, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from random import Random

from hypothesis import strategies as st

_BYTES = 2**20


def bytewise(body: bytes) -> list[bytes]:
    """Cut a body into its bytes."""
    return [body[i : i + 1] for i in range(len(body))]


def in_two(body: bytes) -> Iterator[list[bytes]]:
    """Cut a body in two in every way there is, also with nothing on one side; a long one in some ways, by chance.

    The bytes of all ways together are bounded: their number would grow with the square of the length.
    """
    cuts: Sequence[int] = range(len(body) + 1)
    if len(body) * len(cuts) > _BYTES:
        cuts = Random(len(body)).sample(cuts, max(1, _BYTES // len(body)))
    return ([body[:cut], body[cut:]] for cut in cuts)


def every_way(body: bytes) -> Iterator[list[bytes]]:
    """Yield a body whole, byte by byte, and in two as above."""
    yield [body]
    yield bytewise(body)
    yield from in_two(body)


def at(places: Iterable[float], body: bytes) -> list[bytes]:
    """Cut a body at places between 0, its beginning, and 1, its end."""
    cuts = [0, *sorted(int(place * len(body)) for place in places), len(body)]
    return [body[a:b] for a, b in pairwise(cuts)]


places = st.lists(st.floats(0, 1), max_size=12)
"""Draws places to cut `at`."""
