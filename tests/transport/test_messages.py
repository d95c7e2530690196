"""gRPC's messages, however they are cut."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.transport.http2 import Room
from extproc.transport.messages import Assembly, CallError, Code, Held, prefix
from tests import cuts

MESSAGES = st.lists(st.binary(max_size=20) | st.integers(0, 5000).map(bytes), max_size=6)


def written(messages: list[bytes]) -> bytes:
    """Return messages as they are sent."""
    return b"".join(prefix.pack(0, len(message)) + message for message in messages)


@given(messages=MESSAGES, places=cuts.places)
def test_any_cuts(messages: list[bytes], places: list[float]) -> None:
    """Each message comes out whole, once, with its last byte, and nothing is held for it then."""
    body = written(messages)
    for pieces in (cuts.at(places, body), cuts.bytewise(body)):
        held = Held(Room())
        assembly = Assembly(held)
        assert [message for piece in pieces for message in assembly.feed(piece)] == messages
        assert assembly.is_empty
        assert held.size == 0


@pytest.mark.parametrize(
    ("begin", "code"),
    [(prefix.pack(1, 3), Code.UNIMPLEMENTED), (prefix.pack(0, 64 * 1024 * 1024 + 1), Code.RESOURCE_EXHAUSTED)],
)
def test_what_is_not_taken(begin: bytes, code: Code) -> None:
    """Compressed and too long messages fail as soon as they say so; those before them are taken."""
    for pieces in ([written([b"a"]) + begin], cuts.bytewise(written([b"a"]) + begin)):
        assembly = Assembly(Held(Room()))
        messages = (message for piece in pieces for message in assembly.feed(piece))
        assert next(messages) == b"a"
        with pytest.raises(CallError) as caught:
            next(messages)
        assert caught.value.code is code


def test_a_message_in_tiny_pieces() -> None:
    """A message that comes byte by byte takes no more memory than its bytes, and a little."""
    assembly = Assembly(Held(Room()))
    tracemalloc.start()
    assert [*assembly.feed(prefix.pack(0, 100_001))] == []
    for _ in range(100_000):
        for _message in assembly.feed(b"x"):
            pass
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size < 150_000
    assert [*assembly.feed(b"x")] == [b"x" * 100_001]
