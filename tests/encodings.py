"""Content encodings as senders apply them, for tests."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Encode = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Encoder:
    """Encodes a body bit by bit."""

    add: Encode
    """Encode some more, and flush it."""
    end: Callable[[], bytes]


def _deflated(wbits: int, level: int = 9) -> Encoder:
    stream = zlib.compressobj(level, zlib.DEFLATED, wbits)
    return Encoder(lambda data: stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH), stream.flush)


def _brotli() -> Encoder:
    # The largest window there is.
    stream = brotli.Compressor(quality=5, lgwin=24)
    return Encoder(lambda data: stream.process(data) + stream.flush(), stream.finish)


def _zstd() -> Encoder:
    # The largest window that everybody has to accept.
    stream = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 23})
    return Encoder(lambda data: stream.compress(data, stream.FLUSH_BLOCK), stream.flush)


def _upon(inner: Callable[[], Encoder], outer: Callable[[], Encoder]) -> Callable[[], Encoder]:
    def both() -> Encoder:
        first, then = inner(), outer()
        return Encoder(lambda data: then.add(first.add(data)), lambda: then.add(first.end()) + then.end())

    return both


@dataclass(frozen=True)
class Encoding:
    """A content encoding, or several applied one after the other."""

    header: str
    """The value of Content-Encoding."""
    encoder: Callable[[], Encoder]
    again: bool = False
    """Whether a body may have several members, one after the other."""

    def __call__(self, body: bytes) -> bytes:
        """Encode a body in one go, as one member."""
        encoder = self.encoder()
        return encoder.add(body) + encoder.end()

    def members(self, parts: Sequence[bytes]) -> bytes:
        """Encode a body in one go, each part as a member of its own."""
        return b"".join(map(self, parts))


GZIP = Encoding("gzip", lambda: _deflated(31), again=True)
STORED = Encoding("gzip", lambda: _deflated(31, 0), again=True)
DEFLATE = Encoding("deflate", lambda: _deflated(15))
RAW_DEFLATE = Encoding("deflate", lambda: _deflated(-15))
BROTLI = Encoding("br", _brotli)
ZSTD = Encoding("zstd", _zstd, again=True)


def stacked(encodings: Sequence[Encoding]) -> Encoding:
    """Apply encodings, the first one first."""
    header = ", ".join(each.header for each in encodings)
    return Encoding(header, reduce(_upon, (each.encoder for each in encodings)))


SINGLE = {
    "gzip": GZIP,
    "stored": STORED,
    "deflate": DEFLATE,
    "raw deflate": RAW_DEFLATE,
    "br": BROTLI,
    "zstd": ZSTD,
}
"""Each encoding and kind of one that is known here."""
ALL = SINGLE | {
    each.header: each
    for each in (stacked([GZIP, BROTLI]), stacked([ZSTD, GZIP]), stacked([BROTLI, DEFLATE, ZSTD, GZIP]))
}
"""These and some that are stacked."""
