"""What framings have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from extproc.core.facts import Gap

BOM = b"\xef\xbb\xbf"
"""What some put in front of UTF-8."""


class Framing(Protocol):
    """Takes a body as it arrives, yields the documents in it."""

    def feed(self, data: bytes) -> Iterable[bytes | Gap]:
        """Return the documents that `data` completes, or the gap that one of them leaves."""
        ...

    def end(self) -> Iterable[bytes | Gap]:
        """Return what the end of the body completes."""
        ...
