"""Peers that mean harm: bounded memory, the right end, and no harm to others."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
)

from extproc.transport.http2 import ErrorCode, Room, allowance, connection, headers
from tests.transport.http2.peer import REQUEST, Peer, window

MOST = 2 * allowance.BURST


def opened_and_reset(peer: Peer) -> Iterator[list[Frame]]:
    """Rapid reset: CVE-2023-44487."""
    for number in count(1, 2):
        yield [*peer.request(number), RstStreamFrame(number)]


def malformed(peer: Peer) -> Iterator[list[Frame]]:
    """Streams that make the server reset them: CVE-2025-8671."""
    for number in count(1, 2):
        yield [*peer.request(number), window(number, 2**31 - 1)]


def pings(_: Peer) -> Iterator[list[Frame]]:
    """CVE-2019-9512."""
    while True:
        yield [PingFrame(0, b"12345678")]


def settings(_: Peer) -> Iterator[list[Frame]]:
    """CVE-2019-9515."""
    while True:
        yield [SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 1})]


def empty_data(peer: Peer) -> Iterator[list[Frame]]:
    """CVE-2019-9518."""
    yield peer.request(1)
    while True:
        yield [DataFrame(1, b"")]


def empty_continuations(peer: Peer) -> Iterator[list[Frame]]:
    """CVE-2024-27316, without a byte in them."""
    yield [HeadersFrame(1, peer.encoder.encode(list(REQUEST)))]
    while True:
        yield [ContinuationFrame(1, b"")]


def long_continuations(peer: Peer) -> Iterator[list[Frame]]:
    """CVE-2024-27316."""
    yield [HeadersFrame(1, peer.encoder.encode(list(REQUEST)))]
    while True:
        yield [ContinuationFrame(1, b"\x00\x01a\x01b" * 100)]


def priorities(_: Peer) -> Iterator[list[Frame]]:
    """CVE-2019-9513."""
    for number in count(1, 2):
        yield [PriorityFrame(number)]


def unknown(_: Peer) -> Iterator[list[bytes]]:
    """Frames of no known type."""
    while True:
        yield [b"\x00\x00\x00\xbb\x00\x00\x00\x00\x00"]


def late_data(peer: Peer) -> Iterator[list[Frame]]:
    """Send data for a stream that is over."""
    yield peer.request(1, ends=True)
    while True:
        yield [DataFrame(1, b"a")]


def header_bomb(peer: Peer) -> Iterator[list[Frame]]:
    """One large header in the table, named again and again."""
    large = [*REQUEST, ("x-large", "a" * 3900)]
    yield peer.request(1, headers=large)
    entry = peer.encoder.encode([("x-large", "a" * 3900)])
    assert len(entry) == 1
    for number in count(3, 2):
        yield [HeadersFrame(number, entry * 10_000, flags=["END_HEADERS"])]


Attack = Callable[[Peer], Iterator[list[bytes] | list[Frame]]]

ATTACKS: list[tuple[Attack, ErrorCode]] = [
    (opened_and_reset, ErrorCode.ENHANCE_YOUR_CALM),
    (malformed, ErrorCode.ENHANCE_YOUR_CALM),
    (pings, ErrorCode.ENHANCE_YOUR_CALM),
    (settings, ErrorCode.ENHANCE_YOUR_CALM),
    (empty_data, ErrorCode.ENHANCE_YOUR_CALM),
    (empty_continuations, ErrorCode.ENHANCE_YOUR_CALM),
    (long_continuations, ErrorCode.ENHANCE_YOUR_CALM),
    (priorities, ErrorCode.ENHANCE_YOUR_CALM),
    (unknown, ErrorCode.ENHANCE_YOUR_CALM),
    (late_data, ErrorCode.ENHANCE_YOUR_CALM),
    (header_bomb, ErrorCode.COMPRESSION_ERROR),
]


@pytest.mark.parametrize(("attack", "code"), [pytest.param(*case, id=case[0].__name__) for case in ATTACKS])
def test_floods(attack: Attack, code: ErrorCode) -> None:
    """A flood of what brings nothing ends the connection that it comes on, soon."""
    peer = Peer()
    frames = attack(peer)
    for _ in range(MOST):
        peer.send(*next(frames))
        if peer.connection.finished:
            break
        assert len(peer.connection._over) <= connection._REMEMBERED
    assert peer.ended_with == code
    assert not peer.connection.streams


@pytest.mark.parametrize("attack", [pings, settings, priorities, unknown])
def test_a_little_of_it_is_allowed_for_ever(attack: Attack) -> None:
    """At the pace of a peer that works, none of it does any harm."""
    peer = Peer()
    frames = attack(peer)
    for _ in range(MOST):
        peer.now += 0.05
        peer.send(*next(frames))
        peer.got.clear()
    assert peer.ended_with is None


def test_resets_of_streams_that_were_answered() -> None:
    """Envoy resets a stream whose client has gone: after an answer that costs nothing."""
    peer = Peer()
    for number in range(1, 2 * MOST, 2):
        peer.send(*peer.request(number, b"a"), RstStreamFrame(number))
        peer.got.clear()
        peer.seen.clear()
    assert peer.ended_with is None


def test_resets_of_streams_that_are_over() -> None:
    """Whoever ends a request and resets it at once may find it answered: that costs nothing, once each."""
    peer = Peer()
    for number in range(1, 2 * MOST, 2):
        peer.send(*peer.request(number, b"a", ends=True), RstStreamFrame(number))
        peer.got.clear()
        peer.seen.clear()
    assert peer.ended_with is None
    peer.send(*(RstStreamFrame(1) for _ in range(MOST)))
    assert peer.ended_with == ErrorCode.ENHANCE_YOUR_CALM


def test_windows_of_many_streams_that_change() -> None:
    """A setting that takes a turn through all streams costs as many of them as there are."""
    peer = Peer()
    streams = connection.MOST_STREAMS
    for number in range(1, 2 * streams, 2):
        peer.send(*peer.request(number))
    changes = 0
    while not peer.connection.finished:
        changes += 1
        peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: changes}))
    assert peer.ended_with == ErrorCode.ENHANCE_YOUR_CALM
    assert 10 < changes < 100


def test_windows_that_open_byte_by_byte() -> None:
    """Answers that are let go byte by byte hold no more than what is left of them, and come to their end."""
    peer = Peer()
    peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
    numbers = range(1, 40, 2)
    for number in numbers:
        peer.send(*peer.request(number, b"a" * 100, ends=True))
    for left in reversed(range(100)):
        peer.send(*(window(number, 1) for number in numbers), window(0, 1))
        assert peer.held == left * len(numbers)
    assert all(peer.is_whole(number) for number in numbers)
    assert not peer.connection.streams


def test_too_many_streams() -> None:
    """Streams beyond the limit are refused; those within it go on."""
    peer = Peer()
    most = connection.MOST_STREAMS
    for number in range(1, 2 * most + 20, 2):
        peer.send(*peer.request(number))
    assert len(peer.connection.streams) == most
    assert [peer.reset_with(2 * most + extra) for extra in (-1, 1, 19)] == [None, *[ErrorCode.REFUSED_STREAM] * 2]
    peer.send(DataFrame(1, b"a", flags=["END_STREAM"]))
    assert peer.is_whole(1)


def test_windows_that_never_open() -> None:
    """A peer that takes no answers loses the stream, before much waits for it."""
    peer = Peer()
    peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
    peer.send(*peer.request(1, b"a"), *peer.request(3, b"a"))
    for _ in range(20):
        peer.send(DataFrame(1, b"a" * 4000))
    assert peer.reset_with(1) == ErrorCode.ENHANCE_YOUR_CALM
    assert peer.seen[0].gone
    peer.send(window(3, 1))
    assert peer.answer(3) == b"a"


def test_windows_of_many_streams_that_never_open() -> None:
    """What waits on all streams together is bounded, too."""
    room = Room(32 * 1024 * 1024)
    peer = Peer(room=room)
    peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
    for number in range(1, 2 * 600, 2):
        peer.send(*peer.request(number, b"a" * 15_000), DataFrame(number, b"a" * 15_000))
        assert peer.connection.held <= 16 * 1024 * 1024
    assert peer.ended_with is None
    assert peer.reset_with(1) is None
    assert peer.reset_with(1199) == ErrorCode.ENHANCE_YOUR_CALM
    for number in range(1, 2 * 600, 2):
        peer.send(RstStreamFrame(number))
    assert peer.connection.held == 0
    assert room.left == 32 * 1024 * 1024
    assert not peer.connection.waiting


def streams_without_end(peer: Peer) -> Iterator[list[Frame]]:
    """Open streams, and go on."""
    for number in count(1, 2):
        yield peer.request(number)


def headers_without_end(peer: Peer) -> Iterator[list[Frame]]:
    """Open streams with headers that are long, to be kept as long as they are open."""
    for number in count(1, 2):
        yield peer.request(number, headers=[*REQUEST, ("x-long", "a" * 10_000)])


def blocks_without_end(_: Peer) -> Iterator[list[Frame]]:
    """Begin a header block."""
    yield [HeadersFrame(1, b"a" * 16_000)]
    while True:
        yield [ContinuationFrame(1, b"a" * 1_000)]


def frames_without_end(_: Peer) -> Iterator[list[bytes]]:
    """Take time with each frame."""
    while True:
        yield [b"\x00\x40\x00\xbb\x00\x00\x00\x00\x00"]
        yield from ([b"a" * 1024] for _ in range(16))


@pytest.mark.parametrize("attack", [streams_without_end, headers_without_end, blocks_without_end, frames_without_end])
def test_many_connections(attack: Attack) -> None:
    """However many connections take what they can get, the memory of all is bounded, and the next call is served."""
    size = 200_000
    room = Room(size)
    peers = [Peer(room=room) for _ in range(30)]
    attacks = [attack(peer) for peer in peers]
    for _ in range(40):
        for peer, frames in zip(peers, attacks, strict=True):
            peer.send(*next(frames))
            assert room.left > 0
    served = Peer(room=room)
    served.send(*served.request(1, b"a", ends=True))
    assert served.is_whole(1)
    assert all(peer.ended_with in (None, ErrorCode.ENHANCE_YOUR_CALM) for peer in peers)
    for peer in (*peers, served):
        peer.connection.close()
        assert peer.connection.held == 0
    assert room.left == size


def test_refused_for_what_others_hold() -> None:
    """A peer whose streams find no room is refused them at any rate, and loses nothing else."""
    room = Room(20_000)
    peer = Peer(room=room)
    peer.send(*peer.request(1, b"a"))
    room.left -= 20_000
    for number in range(3, 2 * MOST, 2):
        peer.send(*peer.request(number, b"a" * 100), DataFrame(number, b"b", flags=["END_STREAM"]))
        assert peer.reset_with(number) == ErrorCode.REFUSED_STREAM
        peer.got.clear()
    room.left += 20_000
    peer.send(DataFrame(1, b"b", flags=["END_STREAM"]))
    assert peer.ended_with is None
    assert peer.seen[0].body == b"ab"


def test_data_that_was_on_its_way() -> None:
    """What was sent to a stream before its reset was known is no fault, as far as the stream's window went."""
    peer = Peer()
    peer.send(*peer.request(1, b"a"))
    peer.seen[0].stream.reset(ErrorCode.CANCEL)
    for _ in range(connection.STREAM_WINDOW // 100):
        peer.send(DataFrame(1, b"a" * 100))
    assert peer.ended_with is None
    peer.send(*(DataFrame(1, b"a" * 100) for _ in range(MOST)))
    assert peer.ended_with == ErrorCode.ENHANCE_YOUR_CALM


def test_block_that_never_ends() -> None:
    """A header block is let grow to its limit and no further, while nothing else may come."""
    peer = Peer()
    peer.send(HeadersFrame(1, b"a"))
    for _ in range(headers.LONGEST_BLOCK // 16_000 - 1):
        peer.send(ContinuationFrame(1, b"a" * 16_000))
    assert peer.ended_with is None
    peer.send(ContinuationFrame(1, b"a" * 16_000), ContinuationFrame(1, b"a" * 16_000))
    assert peer.ended_with == ErrorCode.ENHANCE_YOUR_CALM


def test_memory_of_a_long_life() -> None:
    """Tens of thousands of exchanges, ended in every way, leave nothing behind."""
    peer = Peer()

    def live(first: int) -> None:
        for number in range(first, first + 20_000, 2):
            ends = number % 3 == 0
            peer.send(*peer.request(number, b"a", ends=ends), *([] if ends else [RstStreamFrame(number)]))
            peer.got.clear()
            peer.seen.clear()

    live(1)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    live(20_001)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 64 * 1024
