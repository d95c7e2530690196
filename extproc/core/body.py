"""One direction of an exchange: from the bytes of a body to its documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from extproc.core.content import Decoder
from extproc.core.facts import Gap
from extproc.core.framing import Framing

Choose = Callable[[bytes], Framing]
"""Chooses a framing by how a body begins: by `BEGINNING` bytes or more, or all of it; never with white space."""

BEGINNING = 8
"""Bytes that tell one framing from another: a BOM and the longest name of an event's field, with its colon, or less."""


class Body:
    """Decodes a body, chooses its framing when it begins, and yields its documents."""

    def __init__(self, decoder: Decoder, choose: Choose) -> None:
        self._decoder = decoder
        self._choose = choose
        self._framing: Framing | None = None
        self._beginning = b""

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:
        """Yield the documents that `data` completes, and the gaps that it leaves."""
        for piece in self._decoder.decode(data):
            if isinstance(piece, Gap):
                yield piece
                continue
            if self._framing is not None:
                yield from self._framing.feed(piece)
                continue
            self._beginning = (self._beginning + piece).lstrip()  # blank lines and spaces mean nothing to any framing
            if len(self._beginning) >= BEGINNING:
                yield from self._begin()

    def end(self) -> Iterator[bytes | Gap]:
        """Yield the documents that the end of the body completes, and the gaps that it leaves."""
        if self._framing is None and self._beginning:
            yield from self._begin()
        if self._framing is not None:
            yield from self._framing.end()
        if gap := self._decoder.end():
            yield gap

    def _begin(self) -> Iterator[bytes | Gap]:
        self._framing = self._choose(self._beginning)
        yield from self._framing.feed(self._beginning)
        self._beginning = b""
