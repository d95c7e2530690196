"""What all connections of a process may hold together: one peer that opens many must not fill the memory of all."""

from __future__ import annotations

MOST_CONNECTIONS = 10_000
"""Whoever comes after them is sent away. Envoy has one for each of its workers, and a few while it is restarted."""
MOST_STREAMS = 100_000
"""Streams beyond them are refused; they take 4 to 5 KiB each."""
MOST_HELD = 512 * 1024 * 1024
"""Bytes of messages that are not whole, and of answers that wait for a window. Who asks for more is reset."""


class Room:
    """What is taken of it."""

    __slots__ = ("held", "streams")

    def __init__(self) -> None:
        self.held = 0
        self.streams = 0
