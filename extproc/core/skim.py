r"""A JSON document of any length, reduced to the few members that are wanted of it.

Prompts carry pictures and answers carry vectors: documents of 20 MB with a model name in front or token counts at the
end. This reader keeps the wanted members of the top-level object and lets all else go by. Its memory is bounded by
`MEMBER`, its time is linear, and it does not recurse, so depth is no matter.

Grammar: RFC 8259. At the top level brackets, commas and colons matter; below it, only where it ends.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from extproc.core.nesting import Nesting

MEMBER = 64 * 1024
"""Longest wanted member kept, in bytes; a longer one is let go."""

_KEY = 256
"""Longest key looked at, in bytes. No wanted key is that long."""

_STRUCTURE = re.compile(rb'["{}\[\],:]')


class Skimmer:
    """Reads a document chunk by chunk; `document()` is what is left of it."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = {b'"' + name.encode() + b'"' for name in wanted}
        self._kept: dict[bytes, bytes] = {}
        self._at = Nesting()
        self._ended = False
        self._is_object = False
        self._key: bytes | None = None  # the key whose value is being read
        self._text: bytearray | None = bytearray()  # the key or wanted value so far; None when it is let go

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the document."""
        position = 0
        while position < len(data) and not self._ended:
            if self._at.in_string or self._at.depth > 1:
                end = self._at.skip(data, position)
                self._keep(data, position, end)
                position = end
            else:
                position = self._structure(data, position)

    @property
    def complete(self) -> bool:
        """Whether the end of a JSON object has been seen."""
        return self._ended and self._is_object

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Yield the wanted members whose values have ended, undecoded."""
        return ((key[1:-1].decode(), value) for key, value in self._kept.items())

    def document(self) -> bytes:
        """Return the wanted members whose values have ended, as a JSON object."""
        return b"{" + b",".join(key + b":" + value for key, value in self._kept.items()) + b"}"

    def _structure(self, data: bytes, position: int) -> int:
        """Read up to and with the next structural character; return where reading goes on."""
        match = _STRUCTURE.search(data, position)
        if match is None:
            if self._at.depth:
                self._keep(data, position, len(data))
            return len(data)
        end = match.end()
        character = match[0]
        if self._at.depth == 0:
            self._begin(character)
        elif character == b'"':
            self._at.in_string = True
            if self._key is None:
                self._text, position = bytearray(), match.start()  # however far a key is indented
            self._keep(data, position, end)
        elif character in b"}],":
            self._keep(data, position, match.start())
            self._member_ends()
            if character != b",":
                self._ended = True
                self._is_object = character == b"}"
        elif character == b":" and self._key is None:
            self._keep(data, position, match.start())
            self._key = self._take()
            self._text = bytearray() if self._key in self._wanted else None
        else:
            self._keep(data, position, end)
            self._at.depth += character != b":"
        return end

    def _begin(self, character: bytes) -> None:
        self._is_object = character == b"{"
        self._ended = not self._is_object  # nothing else has members
        self._at.depth = 1

    def _keep(self, data: bytes, start: int, end: int) -> None:
        if self._text is None:
            return
        limit = _KEY if self._key is None else MEMBER
        if len(self._text) + end - start > limit:
            self._text = None
        else:
            self._text += data[start:end]

    def _take(self) -> bytes:
        text, self._text = self._text, None
        return bytes(text).strip() if text is not None else b""

    def _member_ends(self) -> None:
        if self._key in self._wanted:
            # As with any JSON reader, the last of several members with one name counts.
            self._kept.pop(self._key, None)
            if self._text is not None:
                self._kept[self._key] = self._take()
        self._key = None
        self._text = bytearray()
