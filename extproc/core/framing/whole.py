"""One JSON document."""

from __future__ import annotations

from collections.abc import Collection

from extproc.core.facts import Gap
from extproc.core.framing.protocol import BOM
from extproc.core.framing.unfinished import Unfinished


class Json:
    """The body is one document (RFC 8259). Over the limit, it is reduced to what lies at the wanted places."""

    def __init__(self, limit: int, wanted: Collection[str]) -> None:
        self._body = Unfinished(limit, wanted)

    def feed(self, data: bytes) -> tuple[()]:
        """Return nothing: the document ends with the body."""
        self._body.add(data)
        return ()

    def end(self) -> tuple[bytes | Gap, ...]:
        """Return the document, if the body was not empty."""
        too_large = self._body.too_large
        body = self._body.take()[-1]
        if isinstance(body, Gap):
            # Over the limit, and there is no end to what is wanted, or no object with an end to it.
            return (Gap.TOO_LARGE if too_large else Gap.UNPARSABLE,)
        document = body.removeprefix(BOM).strip()
        return (document,) if document else ()
