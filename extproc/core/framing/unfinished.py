"""A document on its way."""

from __future__ import annotations

from collections.abc import Collection

from extproc.core.facts import Gap
from extproc.core.pieces import Pieces
from extproc.core.skim import Skimmer


class Unfinished:
    """Holds a document up to a limit, in bytes; beyond it, no more than what lies at wanted places."""

    def __init__(self, limit: int, wanted: Collection[str] = ()) -> None:
        self._limit = limit
        self._wanted = wanted
        self._held = Pieces()
        self._over = False
        self._skimmer: Skimmer | None = None

    def __bool__(self) -> bool:
        """Tell whether anything was added."""
        return self._over or self._held.size > 0

    @property
    def too_large(self) -> bool:
        """Tell whether more is wanted of the document than is held."""
        return self._skimmer is not None and self._skimmer.too_large

    def add(self, data: bytes) -> None:
        """Take the next bytes of the document."""
        if self._skimmer is not None:
            self._skimmer.feed(data)
        elif not self._over:
            self._held.add(data)
            if self._held.size > self._limit:
                self._over = True
                held = self._held.take()
                if self._wanted:
                    self._skimmer = Skimmer(self._wanted)
                    self._skimmer.feed(held)

    def take(self) -> list[bytes | Gap]:
        """End the document and return it, or the gap it leaves and what was kept of it; the next one may begin."""
        taken: list[bytes | Gap] = [Gap.TOO_LARGE if self._over else self._held.take()]
        if self._skimmer is not None and self._skimmer.complete:
            taken.append(self._skimmer.document())
        self._over = False
        self._skimmer = None
        return taken
