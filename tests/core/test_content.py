"""Content encodings."""

from __future__ import annotations

import gzip
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.content import DEPTH, PIECE, RATIO, Allowance, decoder
from extproc.core.facts import Gap
from tests import cuts, encodings
from tests.cuts import bytewise, every_way
from tests.encodings import BROTLI, DEFLATE, GZIP, RAW_DEFLATE, STORED, ZSTD, Encoding, stacked

ENOUGH = 1 << 24
TEXT = b'{"model": "m"}\n' * 5
# Nothing can be made of it, so that a compressed body is long too.
NOISE = random.Random(1).randbytes(100_000)

every_single = pytest.mark.parametrize("encoding", encodings.SINGLE.values(), ids=encodings.SINGLE.keys())
every_encoding = pytest.mark.parametrize("encoding", encodings.ALL.values(), ids=encodings.ALL.keys())


def decode(
    pieces: Iterable[bytes], encoding: str = "gzip", max_decoded: int = ENOUGH, max_message: int = ENOUGH
) -> tuple[bytes, list[Gap]]:
    """Feed a decoder to the end; return what it gave, and the gaps it left."""
    decoding = decoder(encoding, Allowance(max_decoded, max_message))
    items = [item for piece in pieces for item in decoding.decode(piece)]
    decoded = [item for item in items if not isinstance(item, Gap)]
    gaps = [item for item in items if isinstance(item, Gap)]
    assert all(len(piece) <= PIECE for piece in decoded if piece is not NOISE)
    assert not gaps or isinstance(items[-1], Gap), "a gap is the last thing"
    return b"".join(decoded), [*gaps, *filter(None, [decoding.end()])]


@pytest.mark.parametrize("encoding", ["", "identity", " Identity ", ",", "identity, identity"])
def test_identity(encoding: str) -> None:
    """A body without an encoding is handed on as it is."""
    assert decode([TEXT, b"", NOISE], encoding) == (TEXT + NOISE, [])


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("gzip", GZIP),
        ("x-gzip", GZIP),
        ("GZIP", GZIP),
        (" gzip\t", GZIP),
        ("Deflate", DEFLATE),
        ("BR", BROTLI),
        ("zStd", ZSTD),
        ("identity, gzip,identity ,", GZIP),
        ("gzip,br", stacked([GZIP, BROTLI])),
        ("X-GZIP\t,,identity, br", stacked([GZIP, BROTLI])),
    ],
)
def test_names(name: str, encoding: Encoding) -> None:
    """Encodings are named in any case, in a list with empty elements (RFC 9110, sections 5.6.1, 8.4 and 8.4.1)."""
    assert decode([encoding(TEXT)], name) == (TEXT, [])


@pytest.mark.parametrize(
    "encoding",
    [
        "compress",
        "gzip, aes128gcm",
        "aes128gcm, gzip",
        "gzip br",
        "gzip;q=1",
        "dcz",
        "\x00",
        "ﬁ",
        ", ".join(5 * ["br"]),
    ],
)
def test_unknown(encoding: str) -> None:
    """A body in an encoding that nobody here knows leaves one kind of gap, and an empty one leaves none."""
    assert decode([TEXT], encoding) == (b"", [Gap.UNKNOWN_ENCODING])
    assert decode([], encoding) == (b"", [])


def test_depth() -> None:
    """Encodings may be stacked so high, and not higher; those that change nothing do not count."""
    for depth in range(1, DEPTH + 3):
        pile = stacked([GZIP, BROTLI, ZSTD, RAW_DEFLATE, GZIP, ZSTD][:depth])
        expected = (TEXT, []) if depth <= DEPTH else (b"", [Gap.UNKNOWN_ENCODING])
        assert decode([pile(TEXT)], pile.header) == expected
        assert decode([pile(TEXT)], pile.header.replace(",", ", identity,")) == expected


@every_encoding
def test_every_way(encoding: Encoding) -> None:
    """No cut makes a difference."""
    for body in (TEXT, b"", b"{"):
        for pieces in every_way(encoding(body)):
            assert decode(pieces, encoding.header) == (body, [])


@every_encoding
def test_no_body(encoding: Encoding) -> None:
    """A body that is not there at all is not a truncated one, whatever the headers say."""
    assert decode([], encoding.header) == decode([b""], encoding.header) == (b"", [])


SKIPPED = b"\x5a\x2a\x4d\x18" + struct.pack("<I", 3) + b"abc"
AFTER = {
    "one member": (GZIP, [TEXT], b""),
    "nothing": (GZIP, [b""], b""),
    "members": (GZIP, [TEXT, b"", b"more"], b""),
    "padding": (GZIP, [TEXT], bytes(20)),
    "garbage": (GZIP, [TEXT, b"more"], b"garbage" + GZIP(TEXT)),
    "half a magic number": (GZIP, [TEXT], b"\x1f"),
    "half a magic number, then garbage": (GZIP, [TEXT], b"\x1f\x1f\x8b"),
    "zlib, padding": (DEFLATE, [TEXT], bytes(20)),
    "zlib, garbage": (DEFLATE, [TEXT], DEFLATE(TEXT)),
    "raw, garbage": (RAW_DEFLATE, [TEXT], RAW_DEFLATE(TEXT)),
    "frames": (ZSTD, [TEXT, b"", b"more"], b""),
    "frames, a skippable one": (ZSTD, [TEXT, b"more"], SKIPPED),
    "frames, padding": (ZSTD, [TEXT], bytes(20)),
    "frames, garbage": (ZSTD, [TEXT], b"garbage" + ZSTD(TEXT)),
    "half a frame's magic number": (ZSTD, [TEXT], b"\x28\xb5\x2f"),
    "half a skippable frame's magic number, then garbage": (ZSTD, [TEXT], b"\x50\x2a\x28\xb5"),
}


@pytest.mark.parametrize(("encoding", "parts", "after"), AFTER.values(), ids=AFTER.keys())
def test_members(encoding: Encoding, parts: Sequence[bytes], after: bytes) -> None:
    """One or more members are decoded, what follows the last is ignored, and no cut makes a difference."""
    for pieces in every_way(encoding.members(parts) + after):
        assert decode(pieces, encoding.header) == (b"".join(parts), [])


def test_skippable_frames() -> None:
    """Frames of zstd that carry no content may be anywhere (RFC 8878, section 3.1.2)."""
    for pieces in every_way(SKIPPED + SKIPPED + ZSTD(TEXT) + SKIPPED + ZSTD(b"more")):
        assert decode(pieces, "zstd") == (TEXT + b"more", [])


def test_brotli_garbage() -> None:
    """What follows a brotli stream is ignored, or called corrupt if it comes with the end; nothing is made of it."""
    body = BROTLI(TEXT)
    for pieces in ([body, b"garbage"], [*bytewise(body), *bytewise(body)]):
        assert decode(pieces, "br") == (TEXT, [])
    assert decode([body + b"garbage", b"garbage"], "br") == (b"", [Gap.UNPARSABLE])


@given(
    pile=st.lists(st.sampled_from([*encodings.SINGLE.values()]), min_size=1, max_size=DEPTH),
    parts=st.lists(st.binary(max_size=50), min_size=1, max_size=4),
    places=cuts.places,
)
def test_random(pile: list[Encoding], parts: list[bytes], places: list[float]) -> None:
    """Any content in any encodings, flushed and cut anywhere, is decoded to what it was."""
    encoding = stacked(pile)
    encoder = encoding.encoder()
    body = b"".join([*map(encoder.add, parts), encoder.end()])
    assert decode(cuts.at(places, body), encoding.header) == (b"".join(parts), [])


@given(
    encoding=st.sampled_from([each for each in encodings.SINGLE.values() if each.again]),
    parts=st.lists(st.binary(max_size=50), min_size=1, max_size=4),
    places=cuts.places,
)
def test_random_members(encoding: Encoding, parts: list[bytes], places: list[float]) -> None:
    """Any members, cut anywhere, are decoded to what they were."""
    assert decode(cuts.at(places, encoding.members(parts)), encoding.header) == (b"".join(parts), [])


@every_encoding
def test_truncated(encoding: Encoding) -> None:
    """A body that ends too early gives what can be known, and says that it is truncated."""
    for content in (TEXT, NOISE[:50]):
        body = encoding(content)
        for cut in range(1, len(body)):
            for pieces in ([body[:cut]], bytewise(body[:cut])):
                decoded, gaps = decode(pieces, encoding.header)
                assert content.startswith(decoded)
                assert gaps == [Gap.TRUNCATED]


@pytest.mark.parametrize(("encoding", "magic"), [(GZIP, 2), (STORED, 2), (ZSTD, 4)], ids=["gzip", "stored", "zstd"])
def test_truncated_member(encoding: Encoding, magic: int) -> None:
    """A second member that ends too early is as good as a first one, once it can be told from garbage."""
    first, second = encoding(TEXT), encoding(NOISE[:50])
    for cut in range(len(second)):
        for pieces in ([first + second[:cut]], bytewise(first + second[:cut])):
            decoded, gaps = decode(pieces, encoding.header)
            assert decoded.startswith(TEXT)
            assert (TEXT + NOISE).startswith(decoded)
            assert gaps == ([Gap.TRUNCATED] if cut >= magic else [])


CORRUPT = {
    "text": (GZIP, b"no gzip at all"),
    "method": (GZIP, b"\x1f\x8b\x00no such method"),
    "deflate": (GZIP, GZIP(TEXT)[:10] + b"\xff" * 10),
    "checksum": (GZIP, GZIP(TEXT)[:-8] + b"\0\0\0\0" + GZIP(TEXT)[-4:]),
    "second member": (GZIP, GZIP(TEXT) + b"\x1f\x8b\x08\xff\xff" + b"\xff" * 40),
    "zlib, header": (DEFLATE, b"\x78\x00" + DEFLATE(TEXT)[2:]),
    "zlib, checksum": (DEFLATE, DEFLATE(TEXT)[:-4] + b"\0\0\0\0"),
    "zlib, with a dictionary": (DEFLATE, b"\x78\xbb\x11\x11\x11\x11" + DEFLATE(TEXT)[2:]),
    "raw": (RAW_DEFLATE, b"\xff" * 10),
    "br": (BROTLI, b"\xff" * 10),
    "br, large window": (BROTLI, b"\x11\x1e" + BROTLI(TEXT)),
    "zstd": (ZSTD, b"no zstd at all"),
    "zstd, block": (ZSTD, ZSTD(TEXT)[:6] + b"\xff" * 40),
    "zstd, second frame": (ZSTD, ZSTD(TEXT) + ZSTD(TEXT)[:6] + b"\xff" * 40),
    "zstd, with a dictionary": (ZSTD, b"\x28\xb5\x2f\xfd\x21\x01\x05\x29\x00\x00hello"),
    "zstd, window over 8 MiB": (ZSTD, b"\x28\xb5\x2f\xfd\x00\x69" + ZSTD(TEXT)[6:]),
    "zstd, single segment over 8 MiB": (ZSTD, b"\x28\xb5\x2f\xfd\xa0\x00\x00\x00\x01" + ZSTD(TEXT)[6:]),
    "inner": (stacked([ZSTD, GZIP]), GZIP(b"no zstd at all")),
    "outer": (stacked([ZSTD, GZIP]), ZSTD(TEXT)),
}


@pytest.mark.parametrize(("encoding", "body"), CORRUPT.values(), ids=CORRUPT.keys())
def test_corrupt(encoding: Encoding, body: bytes) -> None:
    """A corrupt body gives what came before, says so once, and is not looked at any more."""
    for pieces in ([body], bytewise(body), [body, TEXT, encoding(TEXT)]):
        decoded, gaps = decode(pieces, encoding.header)
        assert TEXT.startswith(decoded)
        assert gaps == [Gap.UNPARSABLE]


def test_zstd_window() -> None:
    """A window of 8 MiB is one that everybody has to accept, and nobody has to accept a larger one (RFC 9659)."""
    assert decode([b"\x28\xb5\x2f\xfd\x00\x68" + b"\x29\x00\x00hello"], "zstd") == (b"hello", [])
    assert decode([b"\x28\xb5\x2f\xfd\x00\x69" + b"\x29\x00\x00hello"], "zstd") == (b"", [Gap.UNPARSABLE])


@every_encoding
def test_flushed(encoding: Encoding) -> None:
    """What a sender has flushed comes out before there is more, also what is still inside a library."""
    encoder, decoding = encoding.encoder(), decoder(encoding.header, Allowance(ENOUGH, ENOUGH))
    for size in (1, 100, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 20 * PIECE + 7):
        for content in (bytes(size), (NOISE * 20)[:size]):
            event = encoder.add(content)
            assert b"".join(item for item in decoding.decode(event) if not isinstance(item, Gap)) == content
    assert [*decoding.decode(encoder.end())] == []
    assert decoding.end() is None


@every_encoding
def test_long(encoding: Encoding) -> None:
    """Chunks of any length are decoded in pieces of bounded length."""
    for content in (NOISE, NOISE + bytes(20 * PIECE) + NOISE):
        assert decode([encoding(content)], encoding.header) == (content, [])
        if encoding.again:
            assert decode([encoding.members([NOISE, content])], encoding.header) == (NOISE + content, [])


@every_single
@pytest.mark.parametrize("size", [0, 1, 1000, PIECE, PIECE + 1, 5 * PIECE])
def test_limit(encoding: Encoding, size: int) -> None:
    """A body may decode to as much as the limit, and not to a byte more."""
    content = NOISE[:1] * size
    fits, does_not = encoding(content), encoding(content + b"!")
    for cut in (lambda body: [body], bytewise):
        assert decode(cut(fits), encoding.header, max_decoded=size) == (content, [])
        decoded, gaps = decode(cut(does_not), encoding.header, max_decoded=size)
        assert content.startswith(decoded)
        assert gaps == [Gap.TOO_LARGE]


BOMB = bytes(16 << 20)


@every_encoding
def test_bomb(encoding: Encoding) -> None:
    """A decompression bomb stops at the limit, and nothing that follows is decoded."""
    bomb = encoding(BOMB)
    decoded, gaps = decode([bomb, bomb, encoding(TEXT)], encoding.header, max_decoded=1 << 20)
    assert len(decoded) <= 1 << 20
    assert gaps == [Gap.TOO_LARGE]


@every_encoding
def test_bomb_in_messages(encoding: Encoding) -> None:
    """A message may decode to a limit and some times its length, however many there are; a body may be longer."""
    bomb = encoding(BOMB)
    for pieces in ([bomb], [bomb[: len(bomb) // 2], bomb[len(bomb) // 2 :]]):
        decoded, gaps = decode(pieces, encoding.header, max_decoded=1 << 30, max_message=PIECE)
        assert len(decoded) <= len(pieces) * PIECE + RATIO * len(bomb)
        assert gaps == ([Gap.TOO_LARGE] if len(bomb) * RATIO < len(BOMB) else [])
    pieces = cuts.at([i / 100 for i in range(100)], encoding(NOISE))
    assert decode(pieces, encoding.header, max_decoded=1 << 30, max_message=len(NOISE)) == (NOISE, [])


@pytest.mark.parametrize("pile", [[GZIP, GZIP], [BROTLI, GZIP], [ZSTD, BROTLI, GZIP], [STORED, ZSTD]])
def test_stacked_bomb(pile: Sequence[Encoding]) -> None:
    """The limit holds for all encodings of a pile together, not only for what comes out at the end."""
    outer = pile[-1](BOMB)
    header = stacked(pile).header
    decoded, gaps = decode([outer, outer], header, max_decoded=1 << 20)
    assert len(decoded) <= 1 << 20
    assert gaps in ([Gap.TOO_LARGE], [Gap.UNPARSABLE])
    inside = stacked(pile[1:])(pile[0](TEXT) + BOMB)
    decoded, gaps = decode([inside, inside], header, max_decoded=1 << 20)
    assert gaps in ([Gap.TOO_LARGE], [Gap.UNPARSABLE])
    assert decoded in (TEXT, b"")


@pytest.mark.parametrize("member", [GZIP(b""), ZSTD(b""), SKIPPED], ids=["gzip", "zstd", "skippable"])
def test_members_limit(member: bytes) -> None:
    """Members without content are work too: there cannot be any number of them."""
    encoding = "gzip" if member == GZIP(b"") else "zstd"
    assert decode([member * 100], encoding, max_decoded=1 << 20) == (b"", [])
    for pieces in ([member * 1000], bytewise(member * 1000)):
        assert decode(pieces, encoding, max_decoded=1 << 20) == (b"", [Gap.TOO_LARGE])


@every_encoding
def test_pieces_memory(encoding: Encoding) -> None:
    """A body that inflates costs no more memory than a few pieces, however it is cut."""
    bomb = encoding(BOMB)
    # Cut small enough that pieces handed out would matter if they were kept.
    for pieces in ([bomb], cuts.at([i / 10 for i in range(10)], bomb)):
        decoding = decoder(encoding.header, Allowance(DEPTH * len(BOMB), DEPTH * len(BOMB)))
        tracemalloc.start()
        size = sum(len(item) for piece in pieces for item in decoding.decode(piece))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size == len(BOMB)
        assert peak < len(bomb) + 4 * DEPTH * PIECE


_MEASURE = """
import re, sys
from pathlib import Path
from extproc.core.content import Allowance, decoder

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

body = sys.stdin.buffer.read()
before = peak()
for item in decoder(sys.argv[1], Allowance(1 << 30, 1 << 30)).decode(body):
    pass
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@every_single
def test_library_memory(encoding: Encoding) -> None:
    """What a library holds is bounded too: a window of 16 MiB at most and what goes with it."""
    content = NOISE * 200
    run = [sys.executable, "-c", _MEASURE, encoding.header]
    done = subprocess.run(run, input=encoding(content), capture_output=True, check=True)
    assert int(done.stdout) < 24 * 1024


HEADS = {
    "gzip": [b"\x1f\x8b\x08", GZIP(TEXT), GZIP(TEXT)[:20]],
    "deflate": [b"\x78\x9c", DEFLATE(TEXT), DEFLATE(TEXT)[:8], RAW_DEFLATE(TEXT), RAW_DEFLATE(TEXT)[:8]],
    "br": [BROTLI(TEXT), BROTLI(TEXT)[:8], BROTLI(NOISE[:50])[:30]],
    "zstd": [b"\x28\xb5\x2f\xfd", SKIPPED[:4], ZSTD(TEXT), ZSTD(TEXT)[:10], ZSTD(NOISE[:50])[:30]],
    "gzip, br": [BROTLI(b"\x1f\x8b\x08"), BROTLI(GZIP(TEXT))[:8]],
}


@given(
    start=st.sampled_from([(name, head) for name, heads in HEADS.items() for head in (b"", *heads)]),
    body=st.binary(max_size=60),
)
def test_never_raises(start: tuple[str, bytes], body: bytes) -> None:
    """No bytes make a decoder raise."""
    name, head = start
    for pieces in ([head + body], [head, body], bytewise(head + body)):
        decode(pieces, name, max_decoded=100)


def test_like_the_library() -> None:
    """The encodings of these tests are what the standard library reads, too."""
    assert gzip.decompress(GZIP.members([TEXT, TEXT])) == TEXT + TEXT
    assert zlib.decompress(DEFLATE(TEXT)) == zlib.decompress(RAW_DEFLATE(TEXT), -15) == TEXT
