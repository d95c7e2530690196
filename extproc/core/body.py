"""One direction of an exchange: from the bytes of a body to its documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from extproc.core.content import Decoder
from extproc.core.facts import Gap
from extproc.core.framing import Framing

Choose = Callable[[bytes], Framing]
"""Chooses a framing by the first bytes of a body, which are never empty and never begin with white space."""


class Body:
    """Decodes a body, chooses its framing when it begins, and yields its documents."""

    def __init__(self, decoder: Decoder, choose: Choose) -> None:
        self._decoder = decoder
        self._choose = choose
        self._framing: Framing | None = None

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:
        """Yield the documents that `data` completes, and the gaps that it leaves."""
        for piece in self._decoder.decode(data):
            if isinstance(piece, Gap):
                yield piece
                continue
            if self._framing is None:
                piece = piece.lstrip()  # noqa: PLW2901 - blank lines and spaces mean nothing to any framing
                if not piece:
                    continue
                self._framing = self._choose(piece)
            yield from self._framing.feed(piece)

    def end(self) -> Iterator[bytes | Gap]:
        """Yield the documents that the end of the body completes, and the gaps that it leaves."""
        if self._framing is not None:
            yield from self._framing.end()
        if gap := self._decoder.end():
            yield gap
