"""What connections hold together is bounded."""

from __future__ import annotations

import pytest
from hyperframe.frame import DataFrame, SettingsFrame

from extproc.transport import messages
from extproc.transport.http2 import ErrorCode, Room, connection, stream
from extproc.transport.messages import Code, Held
from tests.transport.http2.peer import Peer
from tests.transport.http2.test_rpc import Client, message


def test_streams_of_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams beyond the limit for all are refused, until others are over; those that are open go on."""
    monkeypatch.setattr(connection, "MOST_STREAMS_OF_ALL", 10)
    room = Room()
    first, second = Peer(room=room), Peer(room=room)
    for number in range(1, 17, 2):
        first.send(*first.request(number))
    for number in (1, 3, 5):
        second.send(*second.request(number))
    assert room.streams == 10
    assert [second.reset_with(number) for number in (1, 3, 5)] == [None, None, ErrorCode.REFUSED_STREAM]
    first.send(DataFrame(1, b"a", flags=["END_STREAM"]))
    assert first.is_whole(1)
    second.send(*second.request(7, b"b", ends=True))
    assert second.is_whole(7)
    first.connection.close()
    second.connection.close()
    assert room.streams == 0


def test_answers_of_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lets answers wait loses a stream when there is no more room for them; who takes them does not."""
    monkeypatch.setattr(stream, "MOST_HELD_BY_ALL", 10_000)
    room = Room()
    greedy, other, modest = Peer(room=room), Peer(room=room), Peer(room=room)
    for each in (greedy, other):
        each.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
    greedy.send(*greedy.request(1, b"a" * 9_000))
    other.send(*other.request(1, b"b" * 2_000))
    modest.send(*modest.request(1, b"c" * 5_000, ends=True))
    assert other.reset_with(1) == ErrorCode.ENHANCE_YOUR_CALM
    assert greedy.reset_with(1) is None
    assert room.held == 9_000
    assert modest.answer(1) == b"c" * 5_000
    greedy.connection.close()
    assert room.held == 0


def test_messages_of_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that holds more of a message than there is room for fails; others go on."""
    monkeypatch.setattr(messages, "MOST_HELD_BY_ALL", 20_000)
    room = Room()
    first, second = Client(), Client()
    for client in (first, second):
        client.held = Held(room)
        client.open()
        client.data(message(b"a" * 15_000)[:12_000])
    assert first.status().get("grpc-status") is None
    assert second.status()["grpc-status"] == str(Code.RESOURCE_EXHAUSTED.value)
    assert room.held == 12_000 - messages.PREFIX
    first.connection.close()
    assert room.held == 0
