"""Content encodings (RFC 9110, section 8.4): bytes to bytes, incremental, linear, bounded.

A decoder hands out pieces of at most `PIECE` bytes, so that a body which inflates a thousandfold costs no more memory
than one that does not, and stops with `Gap.TOO_LARGE` at `max_decoded` bytes, so that it costs no more time either.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

from extproc.core.facts import Gap

PIECE = 64 * 1024
_BLOCK = 16 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Decoder(Protocol):
    """Takes a body as it arrives, gives it back decoded."""

    def decode(self, data: bytes) -> Iterator[bytes | Gap]:
        """Yield what `data` adds. A gap is the last thing a decoder yields; what comes after it is ignored."""
        ...

    def end(self) -> Gap | None:
        """Say what is missing, now that the body has ended."""
        ...


class Identity:
    """No encoding."""

    def decode(self, data: bytes) -> Iterator[bytes | Gap]:
        """Yield `data`."""
        yield data

    def end(self) -> Gap | None:
        """Say that nothing is missing."""
        return None


class Gzip:
    """gzip, of one or more members (RFC 1952); what follows the last member is ignored, as gzip itself does."""

    def __init__(self, max_decoded: int) -> None:
        self._left = max_decoded
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._between = b""
        self._closed = False

    def decode(self, data: bytes) -> Iterator[bytes | Gap]:
        """See `Decoder`."""
        # In blocks: what a full piece leaves of its input is copied, which must not be the rest of a large chunk.
        for start in range(0, len(data), _BLOCK):
            yield from self._decode(data[start : start + _BLOCK])

    def _decode(self, data: bytes) -> Iterator[bytes | Gap]:
        more = bool(data)
        while more and not self._closed:
            if self._member.eof:
                data = self._between + data
                if len(data) < len(_GZIP_MAGIC) and _GZIP_MAGIC.startswith(data):
                    self._between = data
                    return
                if not data.startswith(_GZIP_MAGIC):
                    self._closed = True
                    return
                self._between = b""
                self._member = zlib.decompressobj(_GZIP_WINDOW)
            limit = min(PIECE, self._left + 1)
            try:
                piece = self._member.decompress(data, limit)
            except zlib.error:
                self._closed = True
                yield Gap.UNPARSABLE
                return
            if len(piece) > self._left:
                self._closed = True
                yield Gap.TOO_LARGE
                return
            self._left -= len(piece)
            if piece:
                yield piece
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            # A full piece may leave output inside zlib when all input is taken.
            more = bool(data) or (len(piece) == limit and not self._member.eof)

    def end(self) -> Gap | None:
        """See `Decoder`."""
        return None if self._closed or self._member.eof else Gap.TRUNCATED


class Unknown:
    """An encoding that cannot be decoded."""

    def decode(self, data: bytes) -> Iterator[bytes | Gap]:  # noqa: ARG002 - the protocol's signature
        """Yield the gap."""
        yield Gap.UNKNOWN_ENCODING

    def end(self) -> Gap | None:
        """Say nothing more: the gap has been named, or the body was empty."""
        return None


def decoder(content_encoding: str, max_decoded: int) -> Decoder:
    """Choose the decoder for a Content-Encoding header; `max_decoded` is in bytes."""
    match content_encoding.strip().lower():
        case "" | "identity":
            return Identity()
        case "gzip" | "x-gzip":
            return Gzip(max_decoded)
        case _:
            return Unknown()
