"""The rules of RFC 9113, beside those that h2spec looks at."""

from __future__ import annotations

import random

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from extproc.transport.http2 import ErrorCode, Stream, connection, headers
from tests.transport.http2.peer import PREFACE, REQUEST, TRAILERS, Peer, window


def test_request_and_answer() -> None:
    """A request is taken piece by piece and answered; nothing is left of it."""
    peer = Peer()
    peer.send(*peer.request(1, b"one"), DataFrame(1, b"two", flags=["END_STREAM"]))
    (seen,) = peer.seen
    assert (seen.request.method, seen.request.path) == ("POST", "/service/Method")
    assert seen.request.headers == {"content-type": "application/grpc", "te": "trailers"}
    assert (seen.body, seen.whole, seen.gone) == (b"onetwo", True, False)
    assert peer.answer(1) == b"onetwo"
    assert peer.is_whole(1)
    assert not peer.connection.streams
    assert peer.ended_with is None


@pytest.mark.parametrize("seed", range(20))
def test_any_cut(seed: int) -> None:
    """Where the bytes are cut makes no difference."""
    chosen = random.Random(seed)
    peer = Peer(greet=False)
    items: list[bytes | Frame] = [PREFACE, SettingsFrame(), *peer.request(1, b"a" * 300)]
    items += [
        *peer.request(3, b"b" * 50, ends=True),
        DataFrame(1, b"c", flags=["END_STREAM"]),
        PingFrame(0, b"12345678"),
    ]
    size = sum(len(item) if isinstance(item, bytes) else len(item.serialize()) for item in items)
    peer.send(*items, cuts=sorted(chosen.randrange(size) for _ in range(chosen.choice((1, 5, 50, 2000)))))
    assert [echo.body for echo in peer.seen] == [b"a" * 300 + b"c", b"b" * 50]
    assert peer.answer(1) == b"a" * 300 + b"c"
    assert peer.answer(3) == b"b" * 50
    assert any(isinstance(frame, PingFrame) and "ACK" in frame.flags for frame in peer.got)


def test_padding_and_priority() -> None:
    """Padding is taken off, and a priority is not looked at."""
    peer = Peer()
    block = peer.encoder.encode(list(REQUEST))
    first = HeadersFrame(1, block, flags=["END_HEADERS", "PADDED", "PRIORITY"], pad_length=9, depends_on=7)
    peer.send(first, DataFrame(1, b"text", flags=["PADDED", "END_STREAM"], pad_length=200))
    assert peer.seen[0].body == b"text"


def test_continuation() -> None:
    """A header block in many frames is one."""
    peer = Peer()
    block = peer.encoder.encode(list(REQUEST))
    pieces: list[Frame] = [HeadersFrame(1, block[:1])]
    pieces += [ContinuationFrame(1, block[at : at + 1]) for at in range(1, len(block))]
    peer.send(*pieces, ContinuationFrame(1, b"", flags=["END_HEADERS"]))
    assert peer.seen[0].request.path == "/service/Method"


def test_request_trailers() -> None:
    """Trailers end a request."""
    peer = Peer()
    trailers = HeadersFrame(1, peer.encoder.encode([("x-sum", "1")]), flags=["END_HEADERS", "END_STREAM"])
    peer.send(*peer.request(1, b"a"), trailers)
    assert peer.seen[0].whole
    assert peer.is_whole(1)


def test_header_blocks_mean_what_the_table_says() -> None:
    """A block that came before has another meaning when the dynamic table has changed, and the old one never comes."""
    peer = Peer()
    paths = ["/a", "/b", "/a", "/a", "/c", "/b", "/b", "/a"] * 20
    for index, path in enumerate(paths):
        # Each header added moves the entries of the table: the same bytes come to name others.
        found = [(name, path if name == ":path" else value) for name, value in REQUEST] + [("x-path", path)]
        peer.send(*peer.request(2 * index + 1, ends=True, headers=found))
    assert [(echo.request.path, echo.request.headers["x-path"]) for echo in peer.seen] == [
        (path, path) for path in paths
    ]


def test_header_blocks_after_updates_of_the_size() -> None:
    """What a block did while the table had no room is not what it does when there is room again."""
    peer = Peer()
    request = b"\x83\x86\x04\x02/a"
    blocks = (
        b"\x20" + request,  # no table
        request + b"\x40\x03x-a\x01b",  # for which there is no room
        b"\x3f\xe1\x1f" + request,  # 4096 bytes of table
        request + b"\x40\x03x-a\x01b",
        request + b"\xbe",  # the entry that is in it now
    )
    for index, block in enumerate(blocks):
        peer.send(HeadersFrame(2 * index + 1, block, flags=["END_HEADERS", "END_STREAM"]))
    assert [echo.request.headers for echo in peer.seen] == [{}, {"x-a": "b"}, {}, {"x-a": "b"}, {"x-a": "b"}]


def test_repeated_blocks_are_decoded_once() -> None:
    """Blocks that leave the table as it is are remembered, so many of them, and stay right."""
    peer = Peer()
    for number in range(1, 1001, 2):
        peer.send(*peer.request(number, ends=True))
    assert len({id(echo.request) for echo in peer.seen}) == 2  # the one that filled the table, and all others
    assert len(peer.connection._headers._remembered) <= headers._REMEMBERED


@pytest.mark.parametrize("size", [1, 7, 100])
def test_answers_wait_for_windows(size: int) -> None:
    """An answer goes out as far as both windows let it, in order, and its trailers behind it."""
    peer = Peer()
    peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
    body = bytes(range(256)) * 4
    peer.send(*peer.request(1, body, ends=True))
    assert peer.answer(1) == b""
    sent = 0
    while sent < len(body):
        assert not peer.is_whole(1)
        peer.send(window(1, size))
        sent = min(sent + size, len(body))
        assert peer.answer(1) == body[:sent]
    assert peer.is_whole(1)
    assert isinstance(last := peer.got[-1], HeadersFrame)
    assert last.data == TRAILERS
    assert not peer.connection.streams
    assert peer.held == 0


def test_window_of_the_connection_is_shared() -> None:
    """Streams take turns when the window of the connection is short; none starves."""
    peer = Peer()
    peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**20}))
    peer.send(*peer.request(1, b"a" * 16384), *(DataFrame(1, b"a" * 16384) for _ in range(3)))
    for number in (3, 5, 7):
        peer.send(*peer.request(number, b"b" * 10_000, ends=True))
    waiting = 4 * 16384 + 3 * 10_000 - 65535
    assert peer.held == waiting
    while peer.held:
        peer.send(window(0, 1000))
    assert [len(peer.answer(number)) for number in (1, 3, 5, 7)] == [65536, 10_000, 10_000, 10_000]
    assert not peer.connection.waiting


def test_windows_are_given_back() -> None:
    """A peer that sends for ever can send for ever."""
    peer = Peer(lambda _request, _stream: Sink())
    peer.send(*peer.request(1, b""))
    sent = 0
    for _ in range(3000):
        peer.send(DataFrame(1, b"x" * 16384))
        sent += 16384
        given = [frame for frame in peer.got if isinstance(frame, WindowUpdateFrame)]
        for number, initial in ((0, 65535), (1, connection.STREAM_WINDOW)):
            assert sent <= initial + sum(f.window_increment for f in given if f.stream_id == number)
    assert peer.ended_with is None


class Sink:
    """Takes all and answers nothing."""

    def data(self, data: bytes, start: int, end: int) -> None:
        """Take it."""

    def proceed(self) -> None:
        """Take it."""

    def end(self) -> None:
        """Take it."""

    def lost(self) -> None:
        """Take it."""

    def expired(self) -> None:
        """Take it."""


def test_initial_window_may_shrink_below_zero() -> None:
    """A smaller initial window counts for open streams, also below 0: RFC 9113, section 6.9.2."""
    peer = Peer()
    peer.send(*peer.request(1, b"a" * 1000))
    peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 100}), DataFrame(1, b"b" * 50))
    assert len(peer.answer(1)) == 1000
    peer.send(window(1, 900))
    assert len(peer.answer(1)) == 1000
    peer.send(window(1, 49))
    assert len(peer.answer(1)) == 1049


def test_answers_fit_the_frames_of_the_peer() -> None:
    """No frame is longer than the peer takes."""
    peer = Peer()
    peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**20}), window(0, 2**20))
    whole = b"a" * 50_000

    class Long(Sink):
        def __init__(self, stream: Stream) -> None:
            self.stream = stream

        def end(self) -> None:
            self.stream.headers(b"\x88")
            self.stream.data(whole)
            self.stream.end(TRAILERS)

    peer.connection._accept = lambda _request, stream: Long(stream)
    peer.send(*peer.request(1, ends=True))
    assert peer.answer(1) == whole
    assert max(len(frame.data) for frame in peer.got if isinstance(frame, DataFrame)) == 16384


def test_reset_by_the_peer() -> None:
    """A reset ends a stream and no other; what was on its way for it is no fault."""
    peer = Peer()
    peer.send(*peer.request(1, b"a"), *peer.request(3, b"b"), RstStreamFrame(1, error_code=8))
    assert (peer.seen[0].gone, peer.seen[1].gone) == (True, False)
    peer.send(window(1, 5), RstStreamFrame(1, error_code=8), PriorityFrame(1), DataFrame(3, b"c", flags=["END_STREAM"]))
    assert peer.answer(3) == b"bc"
    assert peer.ended_with is None


def test_early_answer() -> None:
    """An answer that is whole before its request is followed by NO_ERROR; the rest of the request is no fault."""
    peer = Peer(lambda _request, stream: Early(stream))
    peer.send(*peer.request(1, b"a"), DataFrame(1, b"b"), DataFrame(1, b"c", flags=["END_STREAM"]))
    assert peer.is_whole(1)
    assert peer.reset_with(1) == ErrorCode.NO_ERROR
    assert peer.ended_with is None
    trailers = HeadersFrame(1, peer.encoder.encode([("x-late", "1")]), flags=["END_HEADERS", "END_STREAM"])
    peer.send(trailers, *peer.request(3, b"", headers=(*REQUEST, ("x-late", "1"))))
    assert peer.ended_with is None


class Early(Sink):
    """Answers before it is asked."""

    def __init__(self, stream: Stream) -> None:
        stream.headers(b"\x88")
        stream.end(TRAILERS)


def test_connection_lost() -> None:
    """With the connection all that is open on it ends, once."""
    peer = Peer()
    peer.send(*peer.request(1, b"a"), *peer.request(3, b"b"))
    peer.connection.close()
    peer.connection.close()
    assert [echo.gone for echo in peer.seen] == [True, True]
    peer.take()
    assert peer.ended_with == ErrorCode.NO_ERROR
    assert peer.send(PingFrame(0, b"12345678")) == []


def test_draining() -> None:
    """Draining tells the peer first, serves what was on its way, refuses what comes later and ends with the last."""
    peer = Peer()
    peer.send(*peer.request(1, b"a"))
    peer.connection.drain()
    first, ping = peer.take()
    assert isinstance(first, GoAwayFrame)
    assert (first.last_stream_id, first.error_code) == (2**31 - 1, 0)
    assert isinstance(ping, PingFrame)
    peer.send(*peer.request(3, b"b"))  # was on its way
    peer.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))
    assert peer.connection.drained
    assert isinstance(last := peer.got[-1], GoAwayFrame)
    assert last.last_stream_id == 3
    peer.send(*peer.request(5, b"c"))
    assert peer.reset_with(5) == ErrorCode.REFUSED_STREAM
    peer.send(DataFrame(1, b"", flags=["END_STREAM"]))
    assert not peer.connection.finished
    peer.send(DataFrame(3, b"", flags=["END_STREAM"]))
    assert peer.connection.finished
    assert peer.is_whole(3)


def test_draining_without_streams() -> None:
    """With nothing open, the connection ends as soon as the peer knows."""
    peer = Peer()
    peer.connection.drain()
    peer.connection.drain()
    _, ping = peer.take()
    assert isinstance(ping, PingFrame)
    peer.send(PingFrame(0, b"another!", flags=["ACK"]))
    assert not peer.connection.finished
    peer.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))
    assert peer.connection.finished


def test_deadlines() -> None:
    """Streams are told when their time has come, the earliest first; those that are over are not."""
    peer = Peer()
    peer.send(*peer.request(1, b"a"), *peer.request(3, b"a"), *peer.request(5, b"a"))
    assert peer.connection.deadline is None
    for echo, time in zip(peer.seen, (3.0, 1.0, 2.0), strict=True):
        echo.stream.expire_at(time)
    peer.send(RstStreamFrame(3))
    assert peer.connection.timed
    assert peer.connection.deadline == 2.0
    peer.connection.expire(2.5)
    assert [echo.late for echo in peer.seen] == [False, False, True]
    assert peer.connection.deadline == 3.0


def test_deadlines_of_streams_that_are_over_are_forgotten() -> None:
    """A peer cannot fill the memory with far deadlines."""
    peer = Peer()
    for number in range(1, 20_000, 2):
        peer.send(*peer.request(number, b"a"))
        peer.seen.pop().stream.expire_at(1e9)
        peer.send(RstStreamFrame(number))
    assert len(peer.connection._deadlines._times) < 200


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (DataFrame(9, b"a"), ErrorCode.PROTOCOL_ERROR),
        (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", ErrorCode.FRAME_SIZE_ERROR),
        (b"\x00\x00\x05\x02\x00\x00\x00\x00\x00abcde", ErrorCode.PROTOCOL_ERROR),
        (b"\x00\x00\x05\x05\x00\x00\x00\x00\x01abcde", ErrorCode.PROTOCOL_ERROR),
        (b"\x00\x00\x03\x07\x00\x00\x00\x00\x00abc", ErrorCode.FRAME_SIZE_ERROR),
        (b"\x00\x00\x08\x07\x00\x00\x00\x00\x01abcdefgh", ErrorCode.PROTOCOL_ERROR),
        (b"\x00\x00\x08\x06\x00\x00\x00\x00\x01abcdefgh", ErrorCode.PROTOCOL_ERROR),
        (b"\x00\x00\x01\x01\x25\x00\x00\x00\x01a", ErrorCode.FRAME_SIZE_ERROR),
        (b"\x00\x00\x01\x01\x0d\x00\x00\x00\x01\xff", ErrorCode.PROTOCOL_ERROR),
        (b"\x00\x00\x01\x01\x05\x00\x00\x00\x02\x82", ErrorCode.PROTOCOL_ERROR),
        (b"\x00\x00\x01\x09\x04\x00\x00\x00\x01\x82", ErrorCode.PROTOCOL_ERROR),
        (b"\x00\x00\x02\x01\x05\x00\x00\x00\x01\xff\xff", ErrorCode.COMPRESSION_ERROR),
    ],
)
def test_faults_that_end_the_connection(frame: bytes | Frame, code: ErrorCode) -> None:
    """The connection ends with the code that the RFC names."""
    peer = Peer()
    peer.send(frame)
    assert peer.ended_with == code


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", PREFACE[:-1] + b"x"])
def test_another_protocol(start: bytes) -> None:
    """Who does not speak HTTP/2 is told so, and heard no further."""
    peer = Peer(greet=False)
    peer.send(start)
    assert peer.ended_with == ErrorCode.PROTOCOL_ERROR
    assert not peer.connection.established


@pytest.mark.parametrize(
    "extra",
    [
        [("X-Upper", "a")],
        [("x y", "a")],
        [("", "a")],
        [("connection", "close")],
        [("te", "gzip")],
        [("x-bad", "a\nb")],
        [("x-bad", " a")],
        [(":path", "/again")],
        [(":unknown", "a")],
        [("x-a", "1"), (":authority", "late")],
        [("content-length", "5")],
        [("content-length", "x")],
        [("content-length", "9" * 5000)],
    ],
)
def test_malformed_requests(extra: list[tuple[str, str]]) -> None:
    """A malformed request is reset; the connection and its header table go on."""
    peer = Peer()
    pseudo, rest = [list(REQUEST[:4]), list(REQUEST[4:])]
    found = [*pseudo, *extra, *rest] if extra[0][0].startswith(":") else [*pseudo, *rest, *extra]
    for number in (1, 3):  # the second time from memory
        peer.send(*peer.request(number, b"abcd", ends=True, headers=found))
        assert peer.reset_with(number) == ErrorCode.PROTOCOL_ERROR
        assert not peer.is_whole(number)
    peer.send(*peer.request(5, b"a", ends=True))
    assert peer.is_whole(5)
