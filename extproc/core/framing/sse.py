"""Server-sent events."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from extproc.core.facts import Gap
from extproc.core.framing.protocol import BOM
from extproc.core.framing.unfinished import Unfinished

_CR = ord("\r")
_DATA = b"data: "
_BEFORE_VALUE = len(BOM + _DATA)


class Sse:
    """Server-sent events: yields the data of each event.

    Lines end with LF, CRLF or CR, a blank line dispatches, several data lines are joined by LF
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation). Unlike to a browser,
    an event that the body ends without a blank line counts too, for some servers leave the last one out, and an event
    of nothing but white space does not: it is a sign of life.
    """

    def __init__(self, limit: int, wanted: Collection[str] = ()) -> None:
        self._limit = limit
        self._line = b""  # the unfinished line, while it is not clear what it is
        self._rest: Unfinished | None = None  # then, what takes the rest of it
        self._event = Unfinished(limit, wanted)
        self._has_data = False  # a data line, be it an empty one
        self._other = Unfinished(0)  # where lines go that are not looked at
        self._after_cr = False
        self._at_start = True

    def takes_one(self, data: bytes) -> bool:
        """Tell whether `data` would be a whole event, in one line. To pass it over, then, is to feed it."""
        if not data.endswith(b"\n\n") or b"\r" in data or self._after_cr or len(data) > self._limit:
            return False
        start = data.find(b"\n") + 1 if data.startswith(b"event:") else 0
        one = data.startswith(_DATA, start) and data.find(b"\n", start) == len(data) - 2
        return one and self._is_between

    def feed(self, data: bytes) -> Iterable[bytes | Gap]:
        """See `Framing`."""
        events = self._whole_events(data)
        return self._lines(data) if events is None else events

    @property
    def _is_between(self) -> bool:
        """Whether nothing of an event has come that has not ended."""
        return not (self._at_start or self._line or self._rest is not None or self._has_data)

    def _whole_events(self, data: bytes) -> list[bytes] | None:
        """Return the events in `data` if there are no others than whole ones, each in a line, as nearly always."""
        if not data.endswith(b"\n\n") or b"\r" in data or not self._is_between:
            return None
        events = []
        for event in data[:-2].split(b"\n\n"):
            line = event.partition(b"\n")[2] if event.startswith(b"event:") else event
            if not line.startswith(_DATA) or b"\n" in line or len(line) > self._limit:
                return None
            document = line[len(_DATA) :]
            if document and not document.isspace():
                events.append(document)
        self._after_cr = False
        return events

    def _lines(self, data: bytes) -> Iterator[bytes | Gap]:
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return
        ends_line = data[-1] in b"\r\n"
        self._after_cr = data[-1] == _CR
        if not ends_line and b"\n" not in data and b"\r" not in data:
            self._hold(data)
            return
        lines = data.splitlines()  # of bytes: at LF, CRLF and CR only
        rest = b"" if ends_line else lines.pop()
        if self._rest is not None:
            self._rest.add(lines.pop(0))
            self._rest = None
        else:
            lines[0] = self._line + lines[0]
            self._line = b""
        for line in lines:
            if line:
                self._begin(line)
            else:
                yield from self._dispatch()
        self._hold(rest)

    def end(self) -> Iterator[bytes | Gap]:
        """See `Framing`."""
        if self._line:
            self._begin(self._line)
        yield from self._dispatch()

    def _hold(self, part: bytes) -> None:
        """Take a part of a line that does not end it."""
        if self._rest is not None:
            self._rest.add(part)
            return
        self._line += part
        if len(self._line) >= _BEFORE_VALUE:
            self._rest = self._begin(self._line)
            self._line = b""

    def _begin(self, line: bytes) -> Unfinished:
        """Read a line or the beginning of one; return what takes the rest of it."""
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BOM)
        if not line.startswith(b"data:"):
            return self._other
        if self._has_data:
            self._event.add(b"\n")
        self._has_data = True
        self._event.add(line[6:] if line.startswith(_DATA) else line[5:])
        return self._event

    def _dispatch(self) -> Iterator[bytes | Gap]:
        if self._has_data:
            self._has_data = False
            for item in self._event.take():
                if isinstance(item, Gap) or (item and not item.isspace()):
                    yield item
