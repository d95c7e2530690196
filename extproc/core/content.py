"""Content encodings (RFC 9110, section 8.4): bytes to bytes, incremental, linear, bounded.

A decoder hands out pieces of at most `PIECE` bytes, so that a body which inflates a thousandfold costs no more memory
than one that does not, and stops with `Gap.TOO_LARGE` where its `Allowance` ends, so that it costs no more time either.
What the libraries hold besides is bounded by the format's window: 32 KiB for gzip and deflate, 16 MiB for br
(RFC 7932, section 9.1), 8 MiB for zstd (RFC 9659).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import brotli

from extproc.core.facts import Gap

if sys.version_info >= (3, 14):  # pragma: no cover
    from compression import zstd
else:  # pragma: no cover
    from backports import zstd

PIECE = 64 * 1024
RATIO = 32
DEPTH = 4
"""How many encodings may lie upon one another; nobody is known to use more than two."""
_BLOCK = 16 * 1024
_MEMBER = 4 * 1024


class Decoder(Protocol):
    """Takes a body as it arrives, gives it back decoded."""

    def decode(self, data: bytes) -> Iterable[bytes | Gap]:
        """Return what `data` adds. A gap is the last thing a decoder yields; what comes after it is ignored."""
        ...

    def end(self) -> Gap | None:
        """Say what is missing, now that the body has ended."""
        ...


class Allowance:
    """How much may still be decoded, in bytes: of a body, and of the message at hand.

    Time is spent by the message, while all others wait: one may decode to `message` bytes and to `RATIO` times its
    length. Bodies compress to a fifth or to a thirtieth, bombs to a thousandth and less. All encodings of a body draw
    on its one allowance.
    """

    def __init__(self, body: int, message: int) -> None:
        self._body = body
        self._of_each_message = message
        self._message = 0

    def renew(self, size: int) -> None:
        """Note that a message of so many bytes begins."""
        self._message = self._of_each_message + RATIO * size

    def take(self, size: int) -> bool:
        """Take so much, and tell whether there was enough left."""
        self._body -= size
        self._message -= size
        return self._body >= 0 and self._message >= 0


class Identity:
    """No encoding."""

    def decode(self, data: bytes) -> tuple[bytes]:
        """Return `data`."""
        return (data,)

    def end(self) -> Gap | None:
        """Say that nothing is missing."""
        return None


IDENTITY = Identity()


class Member(Protocol):
    """One compressed stream, with the interface of `lzma.LZMADecompressor` and `zstd.ZstdDecompressor`."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream has been reached."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing more to be had without more input."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What was found after the end of the stream."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Give at most `max_length` bytes; `data` is empty as long as no input is needed."""
        ...


class Deflated:
    """A gzip, zlib or raw deflate stream; `wbits` says which, as for `zlib.decompressobj`."""

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """See `Member`."""
        stream = self._stream
        piece = stream.decompress(data or stream.unconsumed_tail, max_length)
        self.eof, self.unused_data = stream.eof, stream.unused_data
        # A full piece may leave output inside zlib when all input is taken.
        self.needs_input = not stream.unconsumed_tail and len(piece) < max_length
        return piece


class Brotli:
    """A brotli stream (RFC 7932).

    The library calls it corrupt if anything follows its end in the same block, and keeps that block's output to itself.
    """

    unused_data = b""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self.eof = False
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """See `Member`."""
        # The buffer has 32 KiB to begin with, and is tripled if that is not yet the limit.
        piece: bytes = self._stream.process(data, output_buffer_limit=max_length // 4)
        self.eof = self._stream.is_finished()
        self.needs_input = not piece and self._stream.can_accept_more_data()
        return piece


@dataclass(frozen=True, slots=True)
class Codec:
    """One content encoding."""

    begin: Callable[[int], Member]
    """Begins a member, given its first byte."""
    error: type[Exception]
    """What `Member.decompress` raises if the input is corrupt."""
    again: tuple[bytes, ...] = ()
    """What further members begin with; if there is nothing, there is only one."""


class Compressed:
    """A body of one or more members; what follows the last is ignored, as gzip itself does."""

    def __init__(self, codec: Codec, allowance: Allowance) -> None:
        self._codec = codec
        self._allowance = allowance
        self._member: Member | None = None
        self._between = b""
        self._closed = False

    def decode(self, data: bytes) -> Iterator[bytes | Gap]:
        """See `Decoder`."""
        # In blocks: what a full piece leaves of its input is copied, which must not be the rest of a large chunk.
        for start in range(0, len(data), _BLOCK):
            yield from self._block(data[start : start + _BLOCK])

    def _block(self, data: bytes) -> Iterator[bytes | Gap]:
        while data and not self._closed:
            if self._member is None:
                self._member = self._codec.begin(data[0])
            elif self._member.eof:
                data = self._between + data
                if not data.startswith(self._codec.again):
                    self._between = data
                    self._closed = not any(magic.startswith(data) for magic in self._codec.again)
                    return
                self._between = b""
                # A member of a few bytes costs as much time as this much output.
                self._allowance.take(_MEMBER)
                self._member = self._codec.begin(data[0])
            yield from self._of(self._member, data)
            data = self._member.unused_data

    def _of(self, member: Member, data: bytes) -> Iterator[bytes | Gap]:
        """Yield what one member makes of `data`, to the last byte: a flushed event must not wait for the next one."""
        more = True
        while more:
            try:
                piece = member.decompress(data, PIECE)
            except self._codec.error:
                self._closed = True
                yield Gap.UNPARSABLE
                return
            if not self._allowance.take(len(piece)):
                self._closed = True
                yield Gap.TOO_LARGE
                return
            if piece:
                yield piece
            data = b""
            more = not (member.eof or member.needs_input)

    def end(self) -> Gap | None:
        """See `Decoder`. No body at all is not a truncated one: an answer may have none, whatever its headers say."""
        return None if self._closed or self._member is None or self._member.eof else Gap.TRUNCATED


class Stacked:
    """An encoding upon another."""

    def __init__(self, inner: Decoder, outer: Decoder) -> None:
        self._inner = inner
        self._outer = outer
        self._closed = False

    def decode(self, data: bytes) -> Iterator[bytes | Gap]:
        """See `Decoder`."""
        if self._closed:
            return
        for piece in self._outer.decode(data):
            for item in (piece,) if isinstance(piece, Gap) else self._inner.decode(piece):
                self._closed = isinstance(item, Gap)
                yield item
                if self._closed:
                    return

    def end(self) -> Gap | None:
        """See `Decoder`."""
        return None if self._closed else self._outer.end() or self._inner.end()


class Encoded:
    """A body in one encoding or several, which arrives in messages."""

    def __init__(self, decoder: Decoder, allowance: Allowance) -> None:
        self._decoder = decoder
        self._allowance = allowance

    def decode(self, data: bytes) -> Iterable[bytes | Gap]:
        """See `Decoder`; `data` is one message."""
        self._allowance.renew(len(data))
        return self._decoder.decode(data)

    def end(self) -> Gap | None:
        """See `Decoder`."""
        return self._decoder.end()


class Unknown:
    """An encoding that cannot be decoded."""

    def decode(self, data: bytes) -> Iterator[bytes | Gap]:  # noqa: ARG002 - the protocol's signature
        """Yield the gap."""
        yield Gap.UNKNOWN_ENCODING

    def end(self) -> Gap | None:
        """Say nothing more: the gap has been named, or the body was empty."""
        return None


def _deflate(first: int) -> Member:
    """Begin "deflate": a zlib stream (RFC 9110, section 8.4.1.2), or the raw one that some senders take it to mean.

    The first byte of a zlib stream names the method, 8, in its lower half. In a raw stream that would be a stored block
    whose padding is not zero, which nobody writes.
    """
    return Deflated(zlib.MAX_WBITS if first & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS)


_ZSTD_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
_ZSTD_FRAMES = (b"\x28\xb5\x2f\xfd", *(bytes([skippable]) + b"\x2a\x4d\x18" for skippable in range(0x50, 0x60)))
_GZIP = Codec(lambda _: Deflated(16 + zlib.MAX_WBITS), zlib.error, (b"\x1f\x8b",))
_CODECS = {
    "gzip": _GZIP,
    "x-gzip": _GZIP,
    "deflate": Codec(_deflate, zlib.error),
    "br": Codec(lambda _: Brotli(), brotli.error),
    "zstd": Codec(lambda _: zstd.ZstdDecompressor(options=_ZSTD_OPTIONS), zstd.ZstdError, _ZSTD_FRAMES),
}


def decoder(content_encoding: str, allowance: Allowance) -> Decoder:
    """Choose the decoder for a Content-Encoding header, which lists encodings in the order in which they were applied.

    Every further member of a body takes 4 KiB of what is allowed. More than `DEPTH` encodings are as good as unknown.
    """
    names = [name.strip().lower() for name in content_encoding.split(",")]
    applied = [name for name in names if name not in ("", "identity")]
    if len(applied) > DEPTH or not _CODECS.keys() >= set(applied):
        return Unknown()
    decoders: list[Decoder] = [Compressed(_CODECS[name], allowance) for name in applied]
    return Encoded(reduce(Stacked, decoders), allowance) if decoders else IDENTITY
