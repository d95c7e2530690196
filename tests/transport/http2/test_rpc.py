"""gRPC on a connection, beside what a client of grpcio would ever send."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import pytest
from hyperframe.frame import DataFrame, HeadersFrame, RstStreamFrame

from extproc.transport import messages
from extproc.transport.http2 import ErrorCode, Room
from extproc.transport.rpc import Call, Invocation
from extproc.transport.status import CallError, Code
from tests.transport.http2.peer import REQUEST, Peer

METHOD = "/service/Method"


class Handler:
    """Answers each message with itself, but for some."""

    def __init__(self, invocation: Invocation) -> None:
        self.metadata = invocation.metadata
        self.messages: list[bytes] = []
        self.closed = 0

    def receive(self, message: bytes) -> bytes | None:
        """Answer it, or fail."""
        assert not self.closed
        self.messages.append(message)
        if message == b"fail":
            raise CallError(Code.NOT_FOUND, "nothing of 100 % of this: \u00e4\n")
        return None if message == b"hush" else message

    def end(self) -> bool:
        """Be over, if nobody asked for more."""
        if b"fail at the end" in self.messages:
            raise CallError(Code.INTERNAL, "x" * 200)
        return b"stay" not in self.messages

    def close(self) -> None:
        """Count."""
        self.closed += 1


class Client(Peer):
    """A peer that makes calls."""

    def __init__(self, room: Room | None = None) -> None:
        self.handlers: list[Handler] = []
        super().__init__(partial(Call, {METHOD: self._handler}), room=room)

    def _handler(self, invocation: Invocation) -> Handler:
        self.handlers.append(handler := Handler(invocation))
        return handler

    def open(self, number: int = 1, /, **headers: str) -> None:
        """Open a call."""
        found = dict(REQUEST) | {name.replace("_", "-"): value for name, value in headers.items()}
        if path := found.pop("path", None):
            found[":path"] = path
        self.send(*self.request(number, headers=found.items()))

    def data(self, data: bytes, number: int = 1, *, ends: bool = False) -> None:
        """Send bytes of messages."""
        pieces = [data[at : at + 16384] for at in range(0, len(data), 16384)] or [b""]
        for piece in pieces[:-1]:
            self.send(DataFrame(number, piece))
        self.send(DataFrame(number, pieces[-1], flags=["END_STREAM"] if ends else []))

    def status(self, number: int = 1) -> dict[str, str]:
        """Return the headers and trailers of an answer."""
        blocks = [frame.data for frame in self.got if isinstance(frame, HeadersFrame) and frame.stream_id == number]
        return {str(name): str(value) for block in blocks for name, value in self.decoder.decode(block)}


def message(data: bytes) -> bytes:
    """Return a message with its length before it."""
    return b"\0" + len(data).to_bytes(4) + data


def cuts(size: int) -> Iterator[list[int]]:
    """Yield places to cut at: each one, and all."""
    yield from ([at] for at in range(1, size))
    yield list(range(1, size))


def test_messages_at_every_cut() -> None:
    """Messages may be split over frames, and several may be in one."""
    whole = message(b"one") + message(b"") + message(b"hush") + message(b"four")
    for places in cuts(len(whole)):
        client = Client()
        client.open()
        for start, end in pairwise([0, *places, len(whole)]):
            client.data(whole[start:end])
        client.data(b"", ends=True)
        assert client.handlers[0].messages == [b"one", b"", b"hush", b"four"]
        assert client.handlers[0].closed == 1
        assert client.answer(1) == message(b"one") + message(b"") + message(b"four")
        assert client.status() == {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}
        assert client.held == 0


def test_a_message_over_many_frames() -> None:
    """A long message is put together, and given whole."""
    client = Client()
    client.open()
    client.send(*(b"" for _ in ()))
    client.data(message(b"hush") + message(b"a" * 200_000))
    assert [len(found) for found in client.handlers[0].messages] == [4, 200_000]


@pytest.mark.parametrize(
    ("sent", "code", "text"),
    [
        (b"\1\0\0\0\1a", Code.UNIMPLEMENTED, "compressed messages are not supported"),
        (message(b"a") + b"\1\0\0\0\1a", Code.UNIMPLEMENTED, "compressed messages are not supported"),
        (b"\0" + (messages.LONGEST_MESSAGE + 1).to_bytes(4), Code.RESOURCE_EXHAUSTED, "a message of 67108865 bytes"),
        (message(b"fail"), Code.NOT_FOUND, "nothing of 100 %25 of this: %C3%A4%0A"),
        (message(b"a") + message(b"fail") + message(b"never"), Code.NOT_FOUND, "nothing"),
    ],
)
def test_calls_that_fail(sent: bytes, code: Code, text: str) -> None:
    """A call that fails ends at once with a status that says why; nothing more of it is looked at."""
    client = Client()
    client.open()
    client.data(sent)
    client.data(message(b"more"))
    status = client.status()
    assert status["grpc-status"] == str(int(code))
    assert status["grpc-message"].startswith(text)
    assert (status.get("grpc-accept-encoding") == "identity") == (code is Code.UNIMPLEMENTED)
    assert client.reset_with(1) == ErrorCode.NO_ERROR
    assert client.handlers[0].closed == 1
    assert b"never" not in client.handlers[0].messages
    assert client.held == 0
    assert client.ended_with is None


@pytest.mark.parametrize(
    ("sent", "code"),
    [(message(b"abc")[:-1], Code.INTERNAL), (b"\0", Code.INTERNAL), (message(b"fail at the end"), Code.INTERNAL)],
)
def test_calls_that_fail_at_their_end(sent: bytes, code: Code) -> None:
    """A last message that is not whole is told, as is what the handler finds wrong."""
    client = Client()
    client.open()
    client.data(sent, ends=True)
    assert client.status()["grpc-status"] == str(int(code))
    assert client.handlers[0].closed == 1
    assert client.held == 0


@pytest.mark.parametrize("sent", [b"", message(b"a"), message(b"fail"), b"\1\0\0\0\0", message(b"a")[:-1]])
@pytest.mark.parametrize("path", [METHOD, "/service/Other"])
def test_nothing_follows_the_end(path: str, sent: bytes) -> None:
    """When both sides have ended a stream, however they did, nothing more is said of it: RFC 9113, section 5.1."""
    client = Client()
    headers = (dict(REQUEST) | {":path": path}).items()
    client.send(*client.request(1, sent or None, ends=True, headers=headers))
    assert client.is_whole(1)
    if path == METHOD or not sent:
        assert client.reset_with(1) is None
    assert client.ended_with is None


def test_a_status_fits_in_a_frame() -> None:
    """What a status says of a request is cut so that every client takes its frame."""
    client = Client()
    client.open(path="/" + "\u00ff" * 2500)
    client.data(b"", ends=True)
    assert client.status()["grpc-status"] == "12"
    assert all(len(frame.data) <= 16384 for frame in client.got if isinstance(frame, HeadersFrame))


def test_a_handler_may_stay() -> None:
    """A call may go on when the client has said all; its handler may send at any time."""
    client = Client()
    client.open()
    client.data(message(b"stay"), ends=True)
    assert not client.is_whole(1)
    client.connection.close()
    assert client.handlers[0].closed == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"path": "/service/Other"}, {"grpc-status": "12", "grpc-message": "no method /service/Other"}),
        ({"content_type": "application/json"}, {":status": "415"}),
        ({"content_type": "application/grpc+proto"}, {"grpc-status": "0"}),
    ],
)
def test_what_is_served(headers: dict[str, str], status: dict[str, str]) -> None:
    """Unknown methods are UNIMPLEMENTED, what is no gRPC is refused by HTTP's own status."""
    client = Client()
    client.open(**headers)
    client.data(b"", ends=True)
    assert client.status().items() >= status.items()
    assert client.is_whole(1)
    assert client.ended_with is None


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("1S", 1.0), ("250m", 0.25), ("2M", 120.0), ("1H", 3600.0), ("7u", 7e-6), ("7n", 7e-9)]
)
def test_timeouts(timeout: str, seconds: float) -> None:
    """A call ends when the time is over that the client gave it."""
    client = Client()
    client.open(grpc_timeout=timeout)
    client.data(message(b"a"))
    deadline = client.connection.deadline
    assert deadline is not None
    client.open(3, grpc_timeout=f"1{timeout[-1]}")
    client.connection.expire(deadline - seconds / 1e6)
    assert "grpc-status" not in client.status()
    client.connection.expire(deadline)
    client.take()
    assert client.status()["grpc-status"] == str(int(Code.DEADLINE_EXCEEDED))
    assert client.handlers[0].closed == 1


@pytest.mark.parametrize("timeout", ["", "1", "S", "1s", "123456789S", "-1S", "1.5S"])
def test_timeouts_that_are_none(timeout: str) -> None:
    """A timeout that is not well-formed is none."""
    client = Client()
    client.open(grpc_timeout=timeout)
    assert client.connection.deadline is None


def test_what_calls_hold_is_bounded() -> None:
    """Messages that never end fail the call that asks for too much, and no other."""
    room = Room(200_000)
    client = Client(room)
    for number in range(1, 21, 2):
        client.open(number)
        client.data(message(b"a" * 50_000)[:15_000], number)
        assert client.connection.held <= 100_000
    failed = [number for number in range(1, 21, 2) if client.status(number).get("grpc-status") == "8"]
    assert failed == [11, 13, 15, 17, 19]
    client.connection.close()
    assert room.left == 200_000
    assert [handler.closed for handler in client.handlers] == [1] * 10


def test_resets_of_calls_that_want_no_replies() -> None:
    """A call whose messages were taken may be reset at any rate, also where none of them was to be answered."""
    client = Client()
    for number in range(1, 20_000, 2):
        client.open(number)
        client.data(message(b"hush"), number)
        client.send(RstStreamFrame(number))
        client.got.clear()
    assert client.ended_with is None
    assert {handler.closed for handler in client.handlers} == {1}
