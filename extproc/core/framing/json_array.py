"""One JSON array that grows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from extproc.core.facts import Gap
from extproc.core.framing.protocol import BOM
from extproc.core.framing.unfinished import Unfinished
from extproc.core.nesting import Nesting

_TOP = re.compile(rb'["{}\[\],]')


class JsonArray:
    """The body is one array, of which each element is a document as soon as it is complete.

    It is how Gemini streams without `alt=sse`
    (https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference#stream). What follows the array is
    not looked at.
    """

    def __init__(self, limit: int, wanted: Collection[str] = ()) -> None:
        self._element = Unfinished(limit, wanted)
        self._start = b""  # what may become a BOM
        self._at = Nesting()  # at depth 1 it is between the elements
        self._closed = False

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:
        """See `Framing`."""
        if self._at.depth == 0 and not self._closed:
            data = (self._start + data).lstrip()
            self._start = data if BOM.startswith(data) else b""
            data = data[len(self._start) :].removeprefix(BOM).lstrip()
            if not data:
                return
            if not data.startswith(b"["):
                self._closed = True
                yield Gap.UNPARSABLE
                return
            self._at.depth = 1
            data = data[1:]
        position = 0
        while position < len(data) and not self._closed:
            if self._at.in_string or self._at.depth > 1:
                nested = self._at.depth > 1
                end = self._at.skip(data, position)
                self._element.add(data[position:end])
                position = end
                if nested and self._at.depth == 1:
                    yield from self._element.take()
            else:
                match = _TOP.search(data, position)
                end = match.start() if match else len(data)
                self._element.add(data[position:end] if self._element else data[position:end].lstrip())
                position = end
                if match:
                    position = match.end()
                    yield from self._between(match[0])

    def end(self) -> Iterator[bytes | Gap]:
        """See `Framing`."""
        if self._start:
            yield Gap.UNPARSABLE
        elif self._at.depth and not self._closed:
            yield Gap.TRUNCATED

    def _between(self, character: bytes) -> Iterator[bytes | Gap]:
        """Take a structural character that is not inside an element."""
        if character in b",]}":
            self._closed = character != b","
            if self._element:
                yield from self._element.take()
            return
        self._element.add(character)
        if character == b'"':
            self._at.in_string = True
        else:
            self._at.depth = 2
