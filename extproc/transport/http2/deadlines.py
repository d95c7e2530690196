"""When streams are out of time."""

from __future__ import annotations

from collections.abc import Container, Sized
from heapq import heapify, heappop, heappush
from typing import Protocol

# Below this, what streams that are over have left behind is not worth looking for.
_FEW = 64


class Streams(Container[int], Sized, Protocol):
    """The numbers of the streams that are open."""


class Deadlines:
    """A heap of times, which holds at most twice as many as there are open streams, and a few."""

    def __init__(self) -> None:
        self._times: list[tuple[float, int]] = []

    def add(self, number: int, time: float, streams: Streams) -> None:
        """Note the time of a stream."""
        if len(self._times) > 2 * len(streams) + _FEW:
            self._times = [item for item in self._times if item[1] in streams]
            heapify(self._times)
        heappush(self._times, (time, number))

    def next(self, streams: Streams) -> float | None:
        """Return the earliest time of an open stream."""
        while self._times and self._times[0][1] not in streams:
            heappop(self._times)
        return self._times[0][0] if self._times else None

    def passed(self, now: float) -> list[int]:
        """Take out the streams whose time has come."""
        found = []
        while self._times and self._times[0][0] <= now:
            found.append(heappop(self._times)[1])
        return found
