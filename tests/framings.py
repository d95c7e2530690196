"""Ways to run a framing, for tests."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

from extproc.core.facts import Gap
from extproc.core.framing import Framing


def documents(framing: Framing, pieces: Iterable[bytes]) -> list[bytes | Gap]:
    """Feed a framing to the end; return all that it yields."""
    return [*(item for piece in pieces for item in framing.feed(piece)), *framing.end()]


def peak_memory(framing: Framing, pieces: Iterable[bytes]) -> int:
    """Return the most memory that a framing takes, in bytes, beside the pieces."""
    tracemalloc.start()
    try:
        for piece in pieces:
            for _ in framing.feed(piece):
                pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
