"""The other side of a connection, with frames and HPACK of other implementations: hyperframe and hpack."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from extproc.transport.http2 import Connection, Request, Room, Stream

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/service/Method"),
    (":authority", "extproc"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)
ANSWER = b"\x88"  # HPACK for `:status: 200`
TRAILERS = b"\x00\x0bgrpc-status\x010"


class Echo:
    """Answers each piece of a request with itself, and its end with trailers."""

    def __init__(self, request: Request, stream: Stream, seen: list[Echo]) -> None:
        self.request = request
        self.stream = stream
        self.body = b""
        self.whole = False
        self.gone = False
        self.late = False
        seen.append(self)

    def data(self, data: bytes, start: int, end: int) -> None:
        """Answer with the same."""
        data = data[start:end]
        assert not self.whole
        assert not self.gone
        if not self.body:
            self.stream.headers(ANSWER)
        self.body += data
        self.stream.data(data)

    def proceed(self) -> None:
        """Fail: nothing was asked for."""
        raise AssertionError

    def end(self) -> None:
        """Answer with trailers."""
        assert not self.whole
        assert not self.gone
        self.whole = True
        if not self.body:
            self.stream.headers(ANSWER)
        self.stream.end(TRAILERS)

    def lost(self) -> None:
        """Note that it is over."""
        assert not self.gone
        self.gone = True

    def expired(self) -> None:
        """Note that time is up."""
        self.late = True


class Peer:
    """A client of a connection; `now` is the time for both."""

    def __init__(
        self,
        accept: Callable[[Request, Stream], Any] | None = None,
        *,
        greet: bool = True,
        room: Room | None = None,
    ) -> None:
        self.seen: list[Echo] = []
        self.now = 0.0
        self.connection = Connection(
            accept or (lambda request, stream: Echo(request, stream, self.seen)), self.now, room
        )
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.got: list[Frame] = []
        self._rest = b""
        if greet:
            self.send(PREFACE, SettingsFrame())

    def send(self, *items: bytes | Frame, cuts: Iterable[int] = ()) -> list[Frame]:
        """Send bytes and frames, cut at these places; return what comes back."""
        data = b"".join(item if isinstance(item, bytes) else item.serialize() for item in items)
        start = 0
        for cut in (*cuts, len(data)):
            self.connection.receive(data[start:cut], self.now)
            self.finish_turns()
            start = cut
        return self.take()

    def finish_turns(self) -> int:
        """Let the connection take all that it was sent; return in how many turns more."""
        turns = 0
        while self.connection.more:
            self.connection.receive(b"", self.now)
            turns += 1
        return turns

    def take(self) -> list[Frame]:
        """Return the frames that came back."""
        data = self._rest + self.connection.pending()
        found = []
        while len(data) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            if len(data) < 9 + length:
                break
            frame.parse_body(memoryview(data[9 : 9 + length]))
            found.append(frame)
            data = data[9 + length :]
        self._rest = data
        self.got += found
        return found

    def request(
        self,
        number: int,
        body: bytes | None = None,
        *,
        ends: bool = False,
        headers: Iterable[tuple[str, str]] = REQUEST,
    ) -> list[Frame]:
        """Return the frames of a request, or of its beginning."""
        flags = ["END_HEADERS", *(["END_STREAM"] if ends and body is None else [])]
        frames: list[Frame] = [HeadersFrame(number, self.encoder.encode(list(headers)), flags=flags)]
        if body is not None:
            frames.append(DataFrame(number, body, flags=["END_STREAM"] if ends else []))
        return frames

    @property
    def held(self) -> int:
        """The bytes that are held, beside what streams weigh."""
        return self.connection.held - sum(stream.weight for stream in self.connection.streams.values())

    @property
    def ended_with(self) -> int | None:
        """The code with which the connection was ended; `None` if it goes on."""
        codes = [frame.error_code for frame in self.got if isinstance(frame, GoAwayFrame)]
        return codes[-1] if self.connection.finished else None

    def reset_with(self, number: int) -> int | None:
        """Return the code with which a stream was reset."""
        found = (frame for frame in self.got if isinstance(frame, RstStreamFrame) and frame.stream_id == number)
        return next((frame.error_code for frame in found), None)

    def answer(self, number: int) -> bytes:
        """Return the body of the answer so far."""
        return b"".join(frame.data for frame in self.got if isinstance(frame, DataFrame) and frame.stream_id == number)

    def is_whole(self, number: int) -> bool:
        """Tell whether an answer has come to its end."""
        return any("END_STREAM" in frame.flags for frame in self.got if frame.stream_id == number)


def window(number: int, increment: int) -> WindowUpdateFrame:
    """Return a WINDOW_UPDATE."""
    return WindowUpdateFrame(number, window_increment=increment)
