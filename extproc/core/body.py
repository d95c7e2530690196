"""One direction of an exchange: from the bytes of a body to its documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from extproc.core.content import IDENTITY, Decoder
from extproc.core.facts import Gap
from extproc.core.framing import Framing, Multipart, NdJson, Sse

Choose = Callable[[bytes, bool], Framing | None]
"""Chooses a framing by how a body begins, never with white space, and by whether that is all of it.

`None`: more bytes are needed. It must not say so of all, and not without bound, as what has come is read again.
"""

WORK = 100_000
"""Most work on one message, in lines: some 100 ms, for which all others wait. A document counts as `DOCUMENT` lines.

A message has a token or some dozens of them; with 10,000 a whole answer would be in one. What has more is there to hold
us up, and is not looked at any further.
"""
DOCUMENT = 10
_BY_LINE = (Sse, NdJson, Multipart)
# Of fewer bytes no more work can be made, were each a document and a line.
_LITTLE = WORK // (DOCUMENT + 1)


class Body:
    """Decodes a body, chooses its framing when it begins, and yields its documents."""

    __slots__ = ("_beginning", "_choose", "_closed", "_decoder", "_framing", "_pieces", "_room", "_work")

    def __init__(self, decoder: Decoder, choose: Choose, kept: int = 0) -> None:
        self._decoder = decoder
        self._choose = choose
        self._framing: Framing | None = None
        self._beginning = b""
        self._pieces: list[bytes] = []  # the first `kept` bytes, decoded
        self._room = kept
        self._work = 0  # on the message at hand
        self._closed = False

    def feed(self, data: bytes) -> Iterable[bytes | Gap]:
        """Return the documents that `data`, one message, completes, and the gaps that it leaves."""
        if self._closed:
            return ()
        if self._decoder is IDENTITY and len(data) <= _LITTLE:
            return self._piece(data)
        return self._bounded(data)

    def takes_one_event(self, data: bytes) -> bool:
        """Tell whether `data` would be one event, whole and alone, so that it can be passed over."""
        return self._decoder is IDENTITY and isinstance(self._framing, Sse) and self._framing.takes_one(data)

    def end(self) -> Iterable[bytes | Gap]:
        """Return the documents that the end of the body completes, and the gaps that it leaves."""
        if self._closed:
            return ()
        if self._decoder is IDENTITY and self._framing is not None:
            return self._framing.end()
        return self._all_ends()

    def so_far(self, framing: Framing) -> Iterator[bytes | Gap]:
        """Yield what another framing makes of the bytes that were kept; the body may go on."""
        for piece in self._pieces:
            yield from framing.feed(piece)
        yield from framing.end()

    def _bounded(self, data: bytes) -> Iterator[bytes | Gap]:
        """Yield what is in one message as long as it is not too much work."""
        self._work = 0
        for item in self._read(data):
            self._work += DOCUMENT
            if self._work > WORK:
                self._closed = True
                yield Gap.TOO_LARGE
                return
            yield item

    def _read(self, data: bytes) -> Iterator[bytes | Gap]:
        for piece in self._decoder.decode(data):
            if isinstance(piece, Gap):
                yield piece
                continue
            documents = self._piece(piece)
            if isinstance(self._framing, _BY_LINE):
                # Lines without documents are work, too.
                self._work += piece.count(b"\n") + piece.count(b"\r")
            if self._work > WORK:
                yield Gap.TOO_LARGE
            else:
                yield from documents

    def _piece(self, piece: bytes) -> Iterable[bytes | Gap]:
        """Return what the next decoded bytes complete."""
        if self._room > 0:
            self._pieces.append(piece[: self._room])
            self._room -= len(piece)
        if self._framing is not None:
            return self._framing.feed(piece)
        self._beginning = (self._beginning + piece).lstrip()  # blank lines and spaces mean nothing to any framing
        return self._begin(whole=False) if self._beginning else ()

    def _begin(self, *, whole: bool) -> Iterable[bytes | Gap]:
        self._framing = self._choose(self._beginning, whole)
        if self._framing is None:
            return ()
        beginning, self._beginning = self._beginning, b""
        return self._framing.feed(beginning)

    def _all_ends(self) -> Iterator[bytes | Gap]:
        if self._framing is None and self._beginning:
            yield from self._begin(whole=True)
        if self._framing is not None:
            yield from self._framing.end()
        if gap := self._decoder.end():
            yield gap
