"""How much memory the peers of a process can make it hold."""

from __future__ import annotations

MOST_HELD = 256 * 1024 * 1024
"""Bytes that all connections may hold together: streams, unfinished messages and frames, answers that wait."""


class Room:
    """What is left of it for all.

    A connection may hold as much as is left for the others. So one that takes what it can get has half of all, two have
    a third each, and whoever comes next finds some: many that mean harm cannot take the last of it.
    """

    __slots__ = ("left",)

    def __init__(self, size: int = MOST_HELD) -> None:
        self.left = size
