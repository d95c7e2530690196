"""How much of what brings no work a peer may send."""

from __future__ import annotations

BURST = 4_000
PER_SECOND = 400.0


class Allowance:
    """A bucket of tokens for frames that cost us work and bring none.

    Pings, settings, empty frames, streams that are reset before they said anything: each is allowed, and floods of each
    have been attacks (CVE-2019-9512 to 9518, CVE-2023-44487, CVE-2024-27316). A proxy that works sends a few a second.
    """

    def __init__(self, now: float) -> None:
        self._left = float(BURST)
        self._at = now

    def spend(self, now: float, tokens: int) -> bool:
        """Take so many; return whether there were so many."""
        self._left = min(float(BURST), self._left + (now - self._at) * PER_SECOND)
        self._at = now
        self._left -= tokens
        return self._left >= 0
