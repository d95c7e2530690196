"""Bytes that come in pieces and are wanted as a whole: each is copied once at the most."""

from __future__ import annotations

# Shorter ones are put together as they come, as each takes memory of its own.
_SHORT = 2048


class Pieces:
    """What has come so far."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self.size = 0
        """Bytes of all."""

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self.size += len(piece)
        if len(piece) >= _SHORT:
            self._pieces.append(piece)
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += piece
        else:
            self._pieces.append(bytearray(piece))

    def take(self) -> bytes:
        """Return the whole; the next one may begin."""
        whole = b"".join(self._pieces)
        self._pieces, self.size = [], 0
        return whole
