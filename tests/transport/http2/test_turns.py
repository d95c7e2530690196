"""How much of what one read brings is done before others have their turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from extproc.transport.rpc import Call, Invocation
from tests.transport.http2.peer import REQUEST, Peer

EMPTY = b"\0\0\0\0\0"


class Handler:
    """Answers with nothing, and says how often it was asked."""

    def __init__(self, _: Invocation, done: list[str]) -> None:
        self._done = done

    def receive(self, message: bytes) -> bytes | None:
        """Count."""
        self._done.append(f"message {message.decode()}".strip())
        return None

    def end(self) -> bool:
        """Count."""
        self._done.append("end")
        return True

    def close(self) -> None:
        """Count."""
        self._done.append("close")


class Client(Peer):
    """A peer that makes calls."""

    def __init__(self) -> None:
        self.done: list[str] = []
        super().__init__(partial(Call, {"/service/Method": partial(Handler, done=self.done)}))

    def read(self, *frames: Frame) -> int:
        """Let one read bring frames; return in how many turns they are taken."""
        self.connection.receive(b"".join(frame.serialize() for frame in frames), self.now)
        return 1 + self.finish_turns()


def small_frames(client: Client) -> list[Frame]:
    """Send a message in each frame."""
    return [*client.request(1), *(DataFrame(1, EMPTY) for _ in range(10_000))]


def small_messages(client: Client) -> list[Frame]:
    """Send thousands of messages in each frame."""
    return [*client.request(1), *(DataFrame(1, EMPTY * 3000) for _ in range(5))]


def cut_messages(client: Client) -> list[Frame]:
    """Send messages that the frames cut."""
    data = EMPTY * 3000
    return [*client.request(1), DataFrame(1, data[:7]), DataFrame(1, data[7:14_001]), DataFrame(1, data[14_001:])]


def messages_behind_a_long_one(client: Client) -> list[Frame]:
    """Send a message in many frames, the last of which has many more."""
    data = b"\0\0\1\0\0" + b"a" * 65536 + EMPTY * 2000
    return [*client.request(1), *(DataFrame(1, data[at : at + 16384]) for at in range(0, len(data), 16384))]


def many_streams(client: Client) -> list[Frame]:
    """Make a call for each message."""
    return [frame for number in range(1, 4001, 2) for frame in client.request(number, EMPTY, ends=True)]


@pytest.mark.parametrize(
    "flood", [small_frames, small_messages, cut_messages, messages_behind_a_long_one, many_streams]
)
def test_floods_take_turns(flood: Callable[[Client], list[Frame]]) -> None:
    """However many messages one read brings, a turn takes a bounded number of them."""
    client = Client()
    frames = flood(client)
    whole = sum(frame.data.count(EMPTY) for frame in frames if isinstance(frame, DataFrame))
    before = 0
    client.connection.receive(b"".join(frame.serialize() for frame in frames), 0.0)
    while len(client.done) > before:
        assert len(client.done) - before <= 1024
        before = len(client.done)
        client.connection.receive(b"", 0.0)
    assert not client.connection.more
    assert len([item for item in client.done if item.startswith("message")]) >= whole
    assert client.ended_with is None


@pytest.mark.parametrize("ends", ["END_STREAM", "trailers", "reset", "connection"])
def test_order(ends: str) -> None:
    """What follows messages that wait for a turn comes after them, be it the end of the stream or another's message."""
    client = Client()
    messages = b"".join(b"\0\0\0\0\2%02d" % number for number in range(50))
    frames: list[Frame] = [*client.request(1), DataFrame(1, messages, flags=["END_STREAM"] * (ends == "END_STREAM"))]
    if ends == "trailers":
        frames.append(HeadersFrame(1, client.encoder.encode([("a", "b")]), flags=["END_HEADERS", "END_STREAM"]))
    elif ends == "reset":
        frames.append(RstStreamFrame(1))
    frames += client.request(3, b"\0\0\0\0\5other")
    assert client.read(*frames) > 1
    client.connection.close()
    first = [f"message {number:02d}" for number in range(50)]
    over = {"END_STREAM": ["end", "close"], "trailers": ["end", "close"], "reset": ["close"], "connection": []}[ends]
    last = ["close", "close"] if ends == "connection" else ["close"]
    assert client.done == [*first, *over, "message other", *last]


def test_a_call_that_ends_between_turns() -> None:
    """Of a call that is out of time between two turns, nothing more is looked at; what follows is."""
    client = Client()
    frames = client.request(1, headers=[*REQUEST, ("grpc-timeout", "1S")])
    frames += [DataFrame(1, EMPTY * 100, flags=["END_STREAM"]), *client.request(3, b"\0\0\0\0\5other")]
    client.connection.receive(b"".join(frame.serialize() for frame in frames), 0.0)
    assert client.connection.more
    deadline = client.connection.deadline
    assert deadline is not None
    client.connection.expire(deadline)
    taken = client.done.index("close")
    client.finish_turns()
    client.take()
    assert client.done[taken:] == ["close", "message other"]
    assert client.is_whole(1)
    assert client.connection.held == client.connection.streams[3].weight


def test_what_takes_long_has_a_turn_of_its_own() -> None:
    """After a long header block, or a setting that changes many streams, others have their turn."""
    client = Client()
    blocks = [client.request(number, headers=[*REQUEST, ("x", f"{number}" * 500)])[0] for number in (1, 3, 5)]
    assert client.read(*blocks) == 3
    settings = [SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: size}) for size in range(4)]
    assert client.read(*settings) == 4


def test_ordinary_reads_take_one_turn() -> None:
    """What Envoys send at once is taken at once."""
    client = Client()
    beginning = [frame for number in range(1, 101, 2) for frame in client.request(number, EMPTY * 2)]
    assert client.read(*beginning, PingFrame(0, b"12345678")) == 1
    assert client.read(*(RstStreamFrame(number) for number in range(1, 101, 2))) == 1
    assert not client.connection.held
