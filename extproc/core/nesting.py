"""Where in a JSON text one is: how deep in brackets, and whether in a string.

What is between quotes is skipped by searching for the next quote. Outside of strings brackets are counted, not visited,
as long as they cannot lead out of the value. Time is linear, memory is constant, and depth is no matter.
"""

from __future__ import annotations

import re

_BACKSLASH = ord("\\")
_BRACKET = re.compile(rb"[{}\[\]]")

# How far ahead brackets are counted. Were it always to the end of a chunk, one full of small values would be read
# as often as it has values.
_FIRST_WINDOW = 256
_LAST_WINDOW = 64 * 1024


class Nesting:
    """A place in a JSON text; who uses it sets it on entering a string or the first bracket."""

    def __init__(self) -> None:
        self.depth = 0
        """Open brackets; what is at depth 1 or 0 is not skipped."""
        self.in_string = False
        self._escaped = False
        self._window = _FIRST_WINDOW

    def skip(self, data: bytes, position: int) -> int:
        """Skip on, in a string to its end, else towards the end of a value at depth 2 or deeper.

        Return where reading goes on: past the quote or the bracket that changed the state, or anywhere between.
        """
        return self._string(data, position) if self.in_string else self._brackets(data, position)

    def _string(self, data: bytes, position: int) -> int:
        position += self._escaped
        self._escaped = False
        while (quote := data.find(b'"', position)) >= 0:
            if not _is_escaped(data, position, quote):
                self.in_string = False
                return quote + 1
            position = quote + 1
        self._escaped = _is_escaped(data, position, len(data))
        return len(data)

    def _brackets(self, data: bytes, position: int) -> int:
        end = min(position + self._window, len(data))
        quote = data.find(b'"', position, end)
        if quote >= 0:
            end = quote
        closing = data.count(b"}", position, end) + data.count(b"]", position, end)
        if self.depth - closing > 1:
            self.depth += data.count(b"{", position, end) + data.count(b"[", position, end) - closing
            self._window = min(2 * self._window, _LAST_WINDOW)
        else:
            # It may be the end of the value: look at each bracket.
            for match in _BRACKET.finditer(data, position, end):
                self.depth += 1 if match[0] in b"{[" else -1
                if self.depth == 1:
                    self._window = _FIRST_WINDOW
                    return match.end()
        self.in_string = quote >= 0
        return end + self.in_string


def _is_escaped(data: bytes, position: int, end: int) -> bool:
    """Tell whether an odd number of backslashes stands before `end`."""
    start = end
    while start > position and data[start - 1] == _BACKSLASH:
        start -= 1
    return (end - start) % 2 == 1
