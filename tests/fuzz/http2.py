"""A coverage-guided fuzzer for the fast transport: `python tests/fuzz/http2.py [-runs=N] [CORPUS ...]`.

An input is what a peer sends after its preface, cut anywhere. No input may make the connection raise, what it answers
must be frames, and each call must be closed once.
"""

from __future__ import annotations

import sys
from functools import partial

import atheris
from hyperframe.frame import Frame

with atheris.instrument_imports(include=["extproc.transport"]):
    from extproc.transport.http2 import Connection, Room, frames, room
    from extproc.transport.rpc import Call

START = frames.PREFACE + frames.settings({})


class Echo:
    """Answers each message with itself."""

    opened = 0
    closed = 0

    def __init__(self, _: object) -> None:
        Echo.opened += 1

    def receive(self, message: bytes) -> bytes | None:
        """Answer some messages."""
        return None if message.startswith(b"-") else message

    def end(self) -> bool:
        """Be over with the request."""
        return True

    def close(self) -> None:
        """Count."""
        Echo.closed += 1


METHODS = {"/s/M": Echo}


def connection(data: bytes) -> None:
    """Let a peer send this."""
    chosen = atheris.FuzzedDataProvider(data)
    greet = chosen.ConsumeIntInRange(0, 15)
    size = chosen.ConsumeIntInRange(1, 4096)
    rest = chosen.ConsumeBytes(chosen.remaining_bytes())
    Echo.opened = Echo.closed = 0
    space = Room()
    seen = Connection(partial(Call, METHODS), 0.0, space)
    answer = seen.pending()
    if greet:
        seen.receive(START, 0.0)
    for at in range(0, len(rest), size):
        seen.receive(rest[at : at + size], 0.0)
        answer += seen.pending()
    while seen.more:
        seen.receive(b"", 0.0)
    answer += seen.pending()
    if Echo.opened - Echo.closed > len(seen.streams):
        raise AssertionError("a call was not closed")
    seen.close()
    answer += seen.pending()
    if Echo.opened != Echo.closed:
        raise AssertionError("a call was not closed once")
    if seen.held or seen.waiting or space.left != room.MOST_HELD:
        raise AssertionError("something is held for nobody")
    while answer:
        frame, length = Frame.parse_frame_header(memoryview(answer[: frames.HEADER_SIZE]))
        end = frames.HEADER_SIZE + length
        if len(answer) < end:
            raise AssertionError("the answer ends within a frame")
        if length > max(seen.frame, frames.DEFAULT_FRAME):
            raise AssertionError("a frame is too long for the peer")
        frame.parse_body(memoryview(answer[frames.HEADER_SIZE : end]))
        answer = answer[end:]


if __name__ == "__main__":
    atheris.Setup(sys.argv, connection)
    atheris.Fuzz()
