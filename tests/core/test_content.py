"""Content encodings."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.content import PIECE, decoder
from extproc.core.facts import Gap
from tests import cuts
from tests.cuts import bytewise, every_way

ENOUGH = 1 << 24
TEXT = b'{"model": "m"}\n' * 5
# Deflate makes nothing of it, so that a compressed body is long too.
NOISE = random.Random(1).randbytes(100_000)


def decode(pieces: Iterable[bytes], encoding: str = "gzip", max_decoded: int = ENOUGH) -> tuple[bytes, list[Gap]]:
    """Feed a decoder to the end; return what it gave, and the gaps it left."""
    decoding = decoder(encoding, max_decoded)
    items = [item for piece in pieces for item in decoding.decode(piece)]
    decoded = [item for item in items if not isinstance(item, Gap)]
    gaps = [item for item in items if isinstance(item, Gap)]
    assert all(len(piece) <= PIECE for piece in decoded) or encoding != "gzip"
    assert not gaps or isinstance(items[-1], Gap), "a gap is the last thing"
    return b"".join(decoded), [*gaps, *filter(None, [decoding.end()])]


def compress(body: bytes, level: int = 9) -> bytes:
    """Compress as one member, always to the same bytes."""
    return gzip.compress(body, level, mtime=0)


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_identity(encoding: str) -> None:
    """A body without an encoding is handed on as it is."""
    assert decode([TEXT, b"", NOISE], encoding) == (TEXT + NOISE, [])


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", " gzip\t"])
def test_gzip_names(encoding: str) -> None:
    """Gzip goes by two names, in any case (RFC 9110, section 8.4.1.3)."""
    assert decode([compress(TEXT)], encoding) == (TEXT, [])


@pytest.mark.parametrize("encoding", ["compress", "gzip, gzip", "aes128gcm", "\x00", "ﬁ"])
def test_unknown(encoding: str) -> None:
    """A body in an encoding that nobody here knows leaves one kind of gap, and an empty one leaves none."""
    assert decode([TEXT], encoding) == (b"", [Gap.UNKNOWN_ENCODING])
    assert decode([], encoding) == (b"", [])


GOOD = {
    "one member": (compress(TEXT), TEXT),
    "stored": (compress(TEXT, 0), TEXT),
    "nothing": (compress(b""), b""),
    "members": (compress(TEXT) + compress(b"") + compress(b"more"), TEXT + b"more"),
    "padding": (compress(TEXT) + bytes(20), TEXT),
    "garbage": (compress(TEXT) + b"garbage" + compress(TEXT), TEXT),
    "half a magic number": (compress(TEXT) + b"\x1f", TEXT),
    "half a magic number, then garbage": (compress(TEXT) + b"\x1f\x1f\x8b", TEXT),
}


@pytest.mark.parametrize(("body", "expected"), GOOD.values(), ids=GOOD.keys())
def test_gzip(body: bytes, expected: bytes) -> None:
    """One or more members are decoded, what follows the last is ignored, and no cut makes a difference."""
    for pieces in every_way(body):
        assert decode(pieces) == (expected, [])


@given(parts=st.lists(st.binary(max_size=50), min_size=1, max_size=4), places=cuts.places)
def test_gzip_random(parts: list[bytes], places: list[float]) -> None:
    """Any members, cut anywhere, are decoded as the library decodes them whole."""
    body = b"".join(compress(part) for part in parts)
    assert decode(cuts.at(places, body)) == (gzip.decompress(body), [])


@pytest.mark.parametrize("body", [compress(TEXT), compress(TEXT) + compress(TEXT), compress(NOISE[:50])])
def test_gzip_truncated(body: bytes) -> None:
    """A body that ends too early gives what can be known, and says that it is truncated."""
    complete = {len(body), len(compress(TEXT)), len(compress(TEXT)) + 1}
    for cut in set(range(len(body))) - complete:
        for pieces in ([body[:cut]], bytewise(body[:cut])):
            decoded, gaps = decode(pieces)
            assert (TEXT + TEXT).startswith(decoded) or NOISE.startswith(decoded)
            assert gaps == [Gap.TRUNCATED]


@pytest.mark.parametrize(
    "body",
    [
        b"no gzip at all",
        b"\x1f\x8b\x00no such method",
        compress(TEXT)[:10] + b"\xff" * 10,
        compress(TEXT)[:-8] + b"\0\0\0\0" + compress(TEXT)[-4:],
        compress(TEXT) + b"\x1f\x8b\x08\xff\xff" + b"\xff" * 40,
    ],
    ids=["text", "method", "deflate", "checksum", "second member"],
)
def test_gzip_corrupt(body: bytes) -> None:
    """A corrupt body gives what came before, says so once, and is not looked at any more."""
    for pieces in ([body], bytewise(body), [body, TEXT, compress(TEXT)]):
        decoded, gaps = decode(pieces)
        assert TEXT.startswith(decoded)
        assert gaps in ([Gap.UNPARSABLE], [Gap.TRUNCATED])
    assert decode([body, TEXT])[1] == [Gap.UNPARSABLE]


def test_gzip_output_pending() -> None:
    """All output comes out with its input, also what is still inside zlib when the input is used up."""
    for size in (PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 20 * PIECE + 7):
        body = compress(bytes(size))
        assert decode([body]) == (bytes(size), [])
        # Without the trailer, so that nothing but the output itself can ask for more.
        decoding = decoder("gzip", ENOUGH)
        raw = zlib.compressobj(9, zlib.DEFLATED, 31)
        flushed = raw.compress(bytes(size)) + raw.flush(zlib.Z_SYNC_FLUSH)
        assert sum(len(piece) for piece in decoding.decode(flushed)) == size


def test_gzip_long() -> None:
    """Chunks of any length are decoded in pieces of bounded length."""
    for body in (compress(NOISE), compress(NOISE) + compress(NOISE + bytes(PIECE)), compress(NOISE, 0)):
        assert decode([body]) == (gzip.decompress(body), [])


@pytest.mark.parametrize("size", [0, 1, 1000, PIECE, PIECE + 1, 5 * PIECE])
def test_gzip_limit(size: int) -> None:
    """A body may decode to as much as the limit, and not to a byte more."""
    fits, does_not = compress(NOISE[:1] * size), compress(NOISE[:1] * (size + 1))
    for cut in (lambda body: [body], bytewise):
        assert decode(cut(fits), max_decoded=size) == (NOISE[:1] * size, [])
        decoded, gaps = decode(cut(does_not), max_decoded=size)
        assert len(decoded) <= size
        assert gaps == [Gap.TOO_LARGE]


def test_gzip_bomb() -> None:
    """A decompression bomb stops at the limit, and nothing that follows is decoded."""
    bomb = compress(bytes(64 << 20))
    decoded, gaps = decode([bomb, bomb, compress(TEXT)], max_decoded=1 << 20)
    assert len(decoded) <= 1 << 20
    assert gaps == [Gap.TOO_LARGE]


@given(body=st.binary(max_size=60), head=st.sampled_from([b"", compress(TEXT), compress(TEXT)[:20], b"\x1f\x8b\x08"]))
def test_gzip_never_raises(body: bytes, head: bytes) -> None:
    """No bytes make a decoder raise."""
    for pieces in ([head + body], [head, body], bytewise(head + body)):
        decode(pieces, max_decoded=100)
