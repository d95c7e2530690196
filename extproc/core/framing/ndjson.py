"""JSON documents, a line each."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from extproc.core.facts import Gap
from extproc.core.framing.protocol import BOM
from extproc.core.framing.unfinished import Unfinished

_AROUND = len(BOM + b"\r")


class NdJson:
    """A document per line (https://github.com/ndjson/ndjson-spec, https://jsonlines.org).

    Lines end with LF or CRLF, the last one also with the body. Blank lines are nothing.
    """

    def __init__(self, limit: int, wanted: Collection[str] = ()) -> None:
        self._line = Unfinished(limit + _AROUND, wanted)

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:
        """See `Framing`."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._hold(line)
            yield from self._take()
        self._hold(rest)

    def end(self) -> Iterator[bytes | Gap]:
        """See `Framing`."""
        yield from self._take()

    def _hold(self, part: bytes) -> None:
        self._line.add(part if self._line else part.lstrip())

    def _take(self) -> Iterator[bytes | Gap]:
        if self._line:
            for item in self._line.take():
                if isinstance(item, Gap):
                    yield item
                elif document := item.removeprefix(BOM).strip():
                    yield document
