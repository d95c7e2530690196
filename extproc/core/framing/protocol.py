"""What framings have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from extproc.core.facts import Gap

BOM = b"\xef\xbb\xbf"
"""What some put in front of UTF-8."""


class Framing(Protocol):
    """Takes a body as it arrives, yields the documents in it."""

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:
        """Yield the documents that `data` completes, or the gap that one of them leaves."""
        ...

    def end(self) -> Iterator[bytes | Gap]:
        """Yield what the end of the body completes."""
        ...
