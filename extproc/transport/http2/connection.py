"""One HTTP/2 connection: RFC 9113, as a server of requests with bodies and answers with trailers."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from extproc.transport.http2 import frames
from extproc.transport.http2.allowance import Allowance
from extproc.transport.http2.deadlines import Deadlines
from extproc.transport.http2.errors import ConnectionFault, ErrorCode, StreamFault
from extproc.transport.http2.headers import LONGEST_BLOCK, LONGEST_LIST, HeaderReader, Request
from extproc.transport.http2.room import Room
from extproc.transport.http2.stream import NOBODY, Receiver, Stream

Accept = Callable[[Request, Stream], Receiver]
"""Called with each request and the stream to answer it on."""

MOST_STREAMS = 4096
"""Streams that a peer may have open at once. Envoy opens another connection for those beyond."""
STREAM_WINDOW = 1024 * 1024
"""What a peer may send on a stream before we have taken it, in bytes; Envoy's chunks are up to this long."""
CONNECTION_WINDOW = 16 * 1024 * 1024
"""The same for all streams of a connection."""
TURN = 128
"""Frames taken in one turn; more of what one read has brought wait until others have had theirs."""
# Bytes of a header block that takes a turn of its own: decoding it may take longer than many answers.
_LONG_BLOCK = 256
# Streams that are over, of which late frames may come.
_REMEMBERED = 256
# As many as take the time of a frame, when a setting changes the windows of all.
_STREAMS_PER_TOKEN = 64


class Connection:
    """Takes what a peer sends and gives what is to be sent to it.

    Whatever comes, `receive` does not raise, memory stays bounded, and so does what is done in one turn.
    """

    def __init__(self, accept: Accept, now: float, room: Room | None = None) -> None:
        self.out: list[bytes] = [
            frames.settings(
                {
                    frames.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
                    frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                    frames.MAX_HEADER_LIST_SIZE: LONGEST_LIST,
                }
            ),
            frames.window_update(0, CONNECTION_WINDOW - frames.DEFAULT_WINDOW),
        ]
        self.window = frames.DEFAULT_WINDOW
        """What the peer lets us send on all streams together, in bytes."""
        self.frame = frames.DEFAULT_FRAME
        """The longest payload that the peer takes, in bytes."""
        self.established = False
        """Whether the peer has sent the preface and its settings."""
        self.finished = False
        """Whether nothing more is to come: the socket can be closed when all is sent."""
        self.streams: dict[int, Stream] = {}
        self.waiting: dict[int, Stream] = {}
        """Streams with bytes that wait for the window of the connection, in the order of their turns."""
        self.held = 0
        """Bytes of the room that are taken: see `hold`."""
        self.more = False
        """Whether the turn is over before all is taken: call `receive` again, with nothing."""
        self._accept = accept
        self._now = now
        self._room = room or Room()
        self._rest = b""  # frames that wait for the next turn, or one that has not come to its end
        self._paused: Stream | None = None  # with which the next turn begins
        self._preface = frames.PREFACE  # what is still to come of it
        self._headers = HeaderReader()
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags and bytes of an unfinished header block
        self._highest = 0  # of the streams the peer has opened
        # Streams that are over: how many bytes of them may be on their way, if we have reset them.
        self._over: dict[int, int] = {}
        self._owed = 0  # bytes taken for which no window was given back
        self._stream_window = frames.DEFAULT_WINDOW  # what the peer lets us send on a new stream
        self._allowance = Allowance(now)
        self._deadlines = Deadlines()
        self.timed = False
        """Whether there may be a deadline."""
        self.draining = False
        """Whether the peer is asked to open no more streams."""
        self.drained = False
        """Whether the peer knows that it can open no more streams."""

    def receive(self, data: bytes, now: float) -> None:
        """Take what the peer has sent; `now` is in seconds of any clock that does not go back.

        Afterwards there may be `more` to do.
        """
        if self.finished:
            return
        self._now = now
        try:
            if self._preface:
                data = self._after_preface(data)
            if self._rest:
                data = self._rest + data
                self._keep(b"")
            if self.more:
                self._resume()
            position = 0 if self.more else self._frames(data)
            if self.finished:
                return
            if position < len(data):
                self._keep(data[position:])
            elif self._paused is None:
                self.more = False
        except ConnectionFault as fault:
            self._end(fault.code, str(fault))

    def pending(self) -> bytes:
        """Return what is to be sent, once."""
        out = self.out
        if not out:
            return b""
        self.out = []
        return out[0] if len(out) == 1 else b"".join(out)

    def drain(self) -> None:
        """Let the peer open no more streams; `finished` comes with the last of the open ones.

        In two steps, so that streams on their way are served: RFC 9113, section 6.8.
        """
        if self.finished or self.draining:
            return
        self.draining = True
        self.out.append(frames.goaway(frames.LARGEST_ID, ErrorCode.NO_ERROR))
        self.out.append(frames.ping(_DRAIN))

    def close(self) -> None:
        """End the connection and all that is open on it."""
        if not self.finished:
            self._end(ErrorCode.NO_ERROR, "")

    def refuse(self, reason: str) -> None:
        """End the connection because there is no room for it."""
        self._end(ErrorCode.ENHANCE_YOUR_CALM, reason)

    @property
    def deadline(self) -> float | None:
        """When `expire` is to be called, by the clock of `receive`; `None` for never."""
        deadline = self._deadlines.next(self.streams)
        self.timed = deadline is not None
        return deadline

    def expire(self, now: float) -> None:
        """Tell the receivers whose time has come."""
        self._now = now
        for number in self._deadlines.passed(now):
            if stream := self.streams.get(number):
                stream.receiver.expired()

    # What streams ask for.

    def hold(self, size: int) -> bool:
        """Take so many bytes of the room for all connections, or give them back; return whether there was room."""
        self.held += size
        self._room.left -= size
        return self.held <= self._room.left

    def pause(self, stream: Stream) -> None:
        """End the turn; see `Stream.pause`."""
        self._paused = stream
        self.more = True

    def answered(self, stream: Stream) -> None:
        """Take note that the answer is whole."""
        if not stream.remote_ended:
            # The peer may stop: RFC 9113, section 8.1.
            self.out.append(frames.rst_stream(stream.id, ErrorCode.NO_ERROR))
        self._forget(stream, late=_ENDED if stream.remote_ended else STREAM_WINDOW)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream of ours; see `Stream.reset`."""
        if not stream.ended:
            self.out.append(frames.rst_stream(stream.id, code))
            self._lose(stream, late=STREAM_WINDOW)

    def expire_at(self, stream: Stream, time: float) -> None:
        """See `Stream.expire_at`."""
        self.timed = True
        self._deadlines.add(stream.id, time, self.streams)

    # What comes in.

    def _resume(self) -> None:
        """Begin a turn with what the last one has left in the middle."""
        self.more = False
        stream, self._paused = self._paused, None
        if stream is None:
            return
        stream.receiver.proceed()
        if stream.remote_ended and self._paused is None:
            self._request_ends(stream)

    def _keep(self, rest: bytes) -> None:
        """Hold what has not been taken for the next turn or read."""
        before, self._rest = len(self._rest), rest
        self._grow(len(rest) - before, len(rest))

    def _frames(self, data: bytes) -> int:
        """Take whole frames, as many as a turn may have; return where the rest begins."""
        streams, position, size, owed = self.streams, 0, len(data), 0
        for _ in range(TURN):
            start = position + frames.HEADER_SIZE
            if start > size:
                break
            upper, lower, kind, flags, number = frames.unpack_header(data, position)
            length = upper << 8 | lower
            if length > frames.DEFAULT_FRAME:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"frame of {length} bytes")
            end = start + length
            if end > size:
                break
            position = end
            # Nearly all frames are like this; the others go the long way, to the same end.
            if (
                kind == frames.DATA
                and not flags
                and length
                and (stream := streams.get(number)) is not None
                and stream.due is None
                and not stream.remote_ended
                and self._block is None
            ):
                stream.receiver.data(data, start, end)
                owed += length
                stream.owed += length
                if stream.owed >= STREAM_WINDOW // 2:
                    self._give_back(stream)
            else:
                self._frame(kind, flags, number & frames.LARGEST_ID, data[start:end])
            if self.more or self.finished:
                break
        else:
            self.more = True
        self._owed += owed
        if self._owed >= CONNECTION_WINDOW // 2:
            self.out.append(frames.window_update(0, self._owed))
            self._owed = 0
        return position

    def _after_preface(self, data: bytes) -> bytes:
        expected = self._preface[: len(data)]
        if data[: len(expected)] != expected:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface")
        self._preface = self._preface[len(expected) :]
        return data[len(expected) :]

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block[0]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")
        if not self.established:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self.established = True
        take = self._TAKES.get(kind)
        if take is None:
            self._spend()  # an extension: RFC 9113, section 5.5
            return
        try:
            take(self, flags, number, payload)
        except StreamFault as fault:
            self._refuse(number, fault.code)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        length = len(payload)
        self._owed += length
        stream = self.streams.get(number)
        if stream is None:
            self._late(number, length)
            return
        if stream.remote_ended:
            raise StreamFault(ErrorCode.STREAM_CLOSED)
        if flags & frames.PADDED:
            payload = _without_padding(payload)
        ends = bool(flags & frames.END_STREAM)
        if stream.due is not None:
            _count(stream, len(payload), ends=ends)
        stream.remote_ended = ends
        if payload:
            stream.receiver.data(payload, 0, len(payload))
        elif not ends:
            self._spend()
        if not ends:
            stream.owed += length
            if stream.owed >= STREAM_WINDOW // 2:
                self._give_back(stream)
        elif self._paused is None:
            self._request_ends(stream)

    def _give_back(self, stream: Stream) -> None:
        """Let the peer send as much again as was taken."""
        if not stream.ended:
            self.out.append(frames.window_update(stream.id, stream.owed))
            stream.owed = 0

    def _late(self, number: int, length: int) -> None:
        """Take data of a stream that is not open."""
        left = self._over.get(number, _ENDED)
        if 0 < length <= left:
            self._over[number] = left - length
            return
        self._spend()
        if not self._opened(number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} was never opened")
        if left == _ENDED:
            raise StreamFault(ErrorCode.STREAM_CLOSED)

    def _opened(self, number: int) -> bool:
        return 0 < number <= self._highest and number % 2 == 1

    def _headers_frame(self, flags: int, number: int, payload: bytes) -> None:
        if number % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} is not a client's")
        if flags & frames.PADDED:
            payload = _without_padding(payload)
        if flags & frames.PRIORITIZED:
            if len(payload) < _PRIORITY_SIZE:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "no room for the priority")
            depends_on, payload = frames.read_long(payload), payload[_PRIORITY_SIZE:]
            flags |= _DEPENDS_ON_ITSELF * (depends_on == number)
        if flags & frames.END_HEADERS:
            self._header_block(flags, number, payload)
        else:
            self._block = (number, flags, bytearray(payload))
            self._grow(len(payload), len(payload))

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, first_flags, block = self._block
        self._spend()
        block += payload
        self._grow(len(payload), len(block))
        if len(block) > LONGEST_BLOCK:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too long")
        if flags & frames.END_HEADERS:
            self._block = None
            self.hold(-len(block))
            self._header_block(first_flags, number, bytes(block))

    def _grow(self, size: int, whole: int) -> None:
        """Hold so many bytes more of what is `whole` bytes long and has not come to its end."""
        # A share of its own: a connection whose streams have taken theirs is refused more of them, and goes on.
        self.hold(size)
        if whole > self._room.left:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too much is held for all peers together")

    def _header_block(self, flags: int, number: int, block: bytes) -> None:
        if len(block) > _LONG_BLOCK:
            self.more = True
        stream = self.streams.get(number)
        if stream is not None:
            self._trailers(stream, flags, block)
        elif number <= self._highest:
            self._late_headers(number, block)
        else:
            self._open(flags, number, block)

    def _open(self, flags: int, number: int, block: bytes) -> None:
        request = self._headers.request(block) if block else None
        self._highest = number
        if len(self.streams) >= MOST_STREAMS or self.drained:
            raise StreamFault(ErrorCode.REFUSED_STREAM)
        if request is None or flags & _DEPENDS_ON_ITSELF:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR)
        ends = bool(flags & frames.END_STREAM)
        if ends and request.length:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR)
        stream = Stream(self, number, self._stream_window, request)
        if not self.hold(stream.weight):
            # No fault of this peer's: it costs nothing of its allowance.
            self.hold(-stream.weight)
            self._reset_unopened(number, ErrorCode.REFUSED_STREAM, late=STREAM_WINDOW)
            return
        self.streams[number] = stream
        stream.remote_ended = ends
        receiver = self._accept(request, stream)
        if not stream.ended:
            stream.receiver = receiver
        if ends:
            self._request_ends(stream)

    def _trailers(self, stream: Stream, flags: int, block: bytes) -> None:
        well_formed = not block or self._headers.trailers(block)
        if stream.remote_ended:
            raise StreamFault(ErrorCode.STREAM_CLOSED)
        if not well_formed or not flags & frames.END_STREAM or stream.due:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR)
        self._request_ends(stream)

    def _late_headers(self, number: int, block: bytes) -> None:
        self._spend()
        if number not in self._over:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} comes after {self._highest}")
        if self._over[number] == _ENDED:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"stream {number} is over")
        if block:
            self._headers.trailers(block)

    def _priority(self, _flags: int, number: int, payload: bytes) -> None:
        self._spend()
        if not number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY of no stream")
        if len(payload) != _PRIORITY_SIZE:
            raise StreamFault(ErrorCode.FRAME_SIZE_ERROR)
        if frames.read_long(payload) == number:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR)

    def _rst_stream(self, _flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:  # noqa: PLR2004 - an error code: section 6.4
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM is not of 4 bytes")
        if not self._opened(number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} was never opened")
        stream = self.streams.get(number)
        # Clients may well reset what has been answered already: once each.
        if not (stream.spoke if stream else self._over.pop(number, None) is not None):
            self._spend()
        if stream is not None:
            self._lose(stream, late=_ENDED)

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        self._spend()
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS with ACK are not empty")
            return
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a broken length")
        # The last of several counts, and each takes a turn through all streams.
        for name, value in dict(frames.read_settings(payload)).items():
            self._set(name, value)
        self.out.append(frames.header(0, frames.SETTINGS, frames.ACK, 0))
        for stream in list(self.streams.values()):
            stream.pump()
        self.more = bool(self.streams)  # that many: it was a turn of its own

    def _set(self, name: int, value: int) -> None:
        match name:
            case frames.ENABLE_PUSH if value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
            case frames.MAX_FRAME_SIZE:
                if not frames.DEFAULT_FRAME <= value <= frames.LARGEST_FRAME:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
                self.frame = value
            case frames.INITIAL_WINDOW_SIZE:
                if value > frames.LARGEST_WINDOW:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
                self._spend(len(self.streams) // _STREAMS_PER_TOKEN)
                difference, self._stream_window = value - self._stream_window, value
                for stream in self.streams.values():
                    stream.window += difference
                    if stream.window > frames.LARGEST_WINDOW:
                        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")

    def _push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        self._spend()
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:  # noqa: PLR2004 - section 6.7
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING is not of 8 bytes")
        if not flags & frames.ACK:
            self.out.append(frames.ping(payload, frames.ACK))
        elif self.draining and payload == _DRAIN and not self.drained:
            self.drained = True
            self.out.append(frames.goaway(self._highest, ErrorCode.NO_ERROR))
            self._finish_if_drained()

    def _goaway(self, _flags: int, number: int, payload: bytes) -> None:
        # The peer opens no more streams, or none that concern us: only it could be sent streams.
        self._spend()
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:  # noqa: PLR2004 - section 6.8
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of less than 8 bytes")

    def _window_update(self, _flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:  # noqa: PLR2004 - section 6.9
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not of 4 bytes")
        increment = frames.read_long(payload)
        if not number:
            if not increment:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "an increment of 0")
            self.window += increment
            if self.window > frames.LARGEST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
            self._pump()
            return
        stream = self.streams.get(number)
        if stream is None:
            if not self._opened(number):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} was never opened")
            return
        if not increment:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR)
        stream.window += increment
        if stream.window > frames.LARGEST_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR)
        stream.pump()

    # How things end.

    def _request_ends(self, stream: Stream) -> None:
        stream.remote_ended = True
        if not stream.ended:
            stream.receiver.end()

    def _spend(self, tokens: int = 1) -> None:
        if not self._allowance.spend(self._now, tokens):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def _refuse(self, number: int, code: ErrorCode) -> None:
        self._spend()
        stream = self.streams.get(number)
        if stream is not None:
            self.reset(stream, code)
        else:
            self._reset_unopened(number, code, late=0)

    def _reset_unopened(self, number: int, code: ErrorCode, late: int) -> None:
        self.out.append(frames.rst_stream(number, code))
        self._remember(number, late)

    def _pump(self) -> None:
        """Send what waits for the window of the connection, in turns."""
        while self.waiting and self.window > 0:
            # If it does not come to its end, it goes behind the others.
            self.waiting.pop(next(iter(self.waiting))).pump()

    def _lose(self, stream: Stream, late: int) -> None:
        stream.ended = True
        stream.drop()
        receiver = stream.receiver
        self._forget(stream, late)
        receiver.lost()

    def _forget(self, stream: Stream, late: int) -> None:
        stream.receiver = NOBODY
        del self.streams[stream.id]
        self.hold(-stream.weight)
        self._remember(stream.id, late)
        self._finish_if_drained()

    def _remember(self, number: int, late: int) -> None:
        over = self._over
        over[number] = late
        if len(over) > _REMEMBERED:
            del over[next(iter(over))]

    def _finish_if_drained(self) -> None:
        if self.drained and not self.streams:
            self._finish()

    def _end(self, code: ErrorCode, reason: str) -> None:
        self.finished = True
        self.out.append(frames.goaway(self._highest, code, reason))
        for stream in list(self.streams.values()):
            self._lose(stream, late=_ENDED)
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        self.more = False
        self.hold(-len(self._rest))
        self._rest = b""
        if self._block is not None:
            self.hold(-len(self._block[2]))
            self._block = None

    _TAKES: ClassVar = {
        frames.DATA: _data,
        frames.HEADERS: _headers_frame,
        frames.PRIORITY: _priority,
        frames.RST_STREAM: _rst_stream,
        frames.SETTINGS: _settings,
        frames.PUSH_PROMISE: _push_promise,
        frames.PING: _ping,
        frames.GOAWAY: _goaway,
        frames.WINDOW_UPDATE: _window_update,
        frames.CONTINUATION: _continuation,
    }


_DRAIN = b"draining"
_ENDED = -1  # of a stream that the peer has ended or reset: nothing can be on its way
_PRIORITY_SIZE = 5
_DEPENDS_ON_ITSELF = 0x100  # beside a frame's eight flags


def _without_padding(payload: bytes) -> bytes:
    unpadded = frames.without_padding(payload)
    if unpadded is None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the padding is too long")
    return unpadded


def _count(stream: Stream, length: int, *, ends: bool) -> None:
    """Hold a body against its Content-Length: RFC 9113, section 8.1.1."""
    stream.due = (stream.due or 0) - length
    if stream.due < 0 or (ends and stream.due):
        raise StreamFault(ErrorCode.PROTOCOL_ERROR)
