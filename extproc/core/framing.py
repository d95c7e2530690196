"""Framings: a decoded body to JSON documents, incremental, linear, bounded.

A framing takes bytes as they come, cut anywhere, and yields the documents that they complete. It holds at most one
unfinished document, and one unfinished line of it, of `limit` bytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Protocol

from extproc.core.facts import Gap
from extproc.core.skim import Skimmer

_BOM = b"\xef\xbb\xbf"
_CR = ord("\r")
_LINE_END = re.compile(rb"[\r\n]")
_BEFORE_VALUE = len(_BOM + b"data: ")


class Framing(Protocol):
    """Takes a body as it arrives, yields the documents in it."""

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:
        """Yield the documents that `data` completes, or the gap that one of them leaves."""
        ...

    def end(self) -> Iterator[bytes | Gap]:
        """Yield what the end of the body completes."""
        ...


class Json:
    """The body is one document (RFC 8259). Over the limit, it is reduced to its wanted members."""

    def __init__(self, limit: int, wanted: Collection[str]) -> None:
        self._limit = limit
        self._wanted = wanted
        self._body = bytearray()
        self._skimmer: Skimmer | None = None

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:
        """Yield nothing: the document ends with the body."""
        if self._skimmer is not None:
            self._skimmer.feed(data)
        else:
            self._body += data
            if len(self._body) > self._limit:
                self._skimmer = Skimmer(self._wanted)
                self._skimmer.feed(bytes(self._body))
                self._body.clear()
        return iter(())

    def end(self) -> Iterator[bytes | Gap]:
        """Yield the document, if the body was not empty."""
        if self._skimmer is not None:
            yield self._skimmer.document() if self._skimmer.complete else Gap.UNPARSABLE
        elif document := bytes(self._body).removeprefix(_BOM).strip():
            yield document


class Sse:
    """Server-sent events: yields the data of each event.

    Lines end with LF, CRLF or CR, a blank line dispatches, several data lines are joined by LF
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation). Unlike to a browser,
    an event that the body ends without a blank line counts too, for some servers leave the last one out, and an event
    of empty data does not: it is a sign of life.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line = bytearray()  # the unfinished line
        self._data: bytearray | None = None  # the data lines of the unfinished event
        self._too_large = False
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:
        """See `Framing`."""
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return
        ends_line = data[-1] in b"\r\n"
        self._after_cr = data[-1] == _CR
        if not ends_line and not _LINE_END.search(data):
            self._hold(data)
            return
        lines = data.splitlines()  # of bytes: at LF, CRLF and CR only
        rest = b"" if ends_line else lines.pop()
        if self._line:
            lines[0] = bytes(self._line + lines[0])
            self._line.clear()
        for line in lines:
            if line:
                self._read(line)
            else:
                yield from self._dispatch()
        self._hold(rest)

    def end(self) -> Iterator[bytes | Gap]:
        """See `Framing`."""
        if self._line:
            self._read(bytes(self._line))
            self._line.clear()
        yield from self._dispatch()

    def _hold(self, part: bytes) -> None:
        """Keep the beginning of a line, and of a line that is too long no more than shows it."""
        self._line += part
        del self._line[self._limit + _BEFORE_VALUE + 1 :]

    def _read(self, line: bytes) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line.startswith(b"data:"):
            return
        value = line[6:] if line[5:6] == b" " else line[5:]
        if self._data is None:
            self._data = bytearray(value)
        else:
            self._data += b"\n" + value
        if len(self._data) > self._limit:
            self._too_large = True
            self._data = None

    def _dispatch(self) -> Iterator[bytes | Gap]:
        if self._too_large:
            yield Gap.TOO_LARGE
        elif self._data:
            yield bytes(self._data)
        self._data = None
        self._too_large = False
