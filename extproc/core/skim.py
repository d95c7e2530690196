r"""A JSON document of any length, reduced to what lies at the few places that are wanted of it.

Prompts carry pictures and answers carry vectors: documents of 20 MB with a model name in front or token counts at the
end, or a count beside each vector. This reader follows the objects and arrays that lead to a wanted place and lets all
else go by. Its time is linear and it does not recurse, so depth is no matter.

A value at a wanted place is kept whole, or if other places lie below it, with these alone. One of more than `MEMBER`
bytes is let go: no count and no name is that long. Elements of an array are not let go, for counts in them are added
up: where more than `ARRAY` bytes would be kept of an array, the document is `too_large` and never complete. With these
bounds memory is bounded too.

Grammar: RFC 8259. On the way to wanted places brackets, commas and colons matter; in all else, only where it ends.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from extproc.core.nesting import Nesting
from extproc.core.place import Wanted, tree

MEMBER = 64 * 1024
"""Longest wanted value kept, in bytes; a longer one is let go."""

ARRAY = 1024 * 1024
"""Most that is kept of an array, in bytes; a document of which more is wanted is let go."""

_KEY = 256
"""Longest key looked at, in bytes. No wanted key is that long."""

_AT_KEY = re.compile(rb'["{}\[\],:]')
_AT_VALUE = re.compile(rb'["{}\[\],]')

_DULL = re.compile(rb'(?:[^"{}\[\],]*+(?:"[^"\\]*+"|\[[^"{}\[\]]*+\])?+[^"{}\[\],]*+,)*+')
"""Elements of an array that have no object in them: numbers, strings, lists of numbers."""


class _Container:
    """An object or array on the way to wanted places, and what is kept of it so far."""

    __slots__ = ("elements", "is_array", "key", "members", "wanted")

    def __init__(self, wanted: Wanted, *, is_array: bool) -> None:
        self.wanted = wanted
        self.is_array = is_array
        self.key = b""  # of the member whose value is being read
        self.members: dict[bytes, bytes] = {}
        self.elements = bytearray()  # each with a comma behind it

    def keep(self, value: bytes | None) -> None:
        """Keep a value that has ended, or nothing of it."""
        if self.is_array:
            if value:
                self.elements += value + b","
        else:
            # As with any JSON reader, the last of several members with one name counts.
            self.members.pop(self.key, None)
            if value is not None:
                self.members[self.key] = value

    def json(self) -> bytes:
        """Return what is kept of it."""
        if self.is_array:
            return b"[" + self.elements[:-1] + b"]"
        return b"{" + b",".join(key + b":" + value for key, value in self.members.items()) + b"}"


class Skimmer:
    """Reads a document chunk by chunk; `document()` is what is left of it, with what is wanted at the same places."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._root = _Container(tree(tuple(wanted)), is_array=False)
        self._in = self._root
        self._around: list[_Container] = []
        self._at = Nesting()  # at depth 1 it is in the innermost container that is followed, and in nothing else
        self._ended = False
        self.complete = False
        """Whether the end of a JSON object has been seen."""
        self.too_large = False
        """Whether more is wanted of an array than is kept."""
        self._in_key = True  # or before it
        self._wanted: Wanted | None = None  # of the value that is being read
        self._reduced: bytes | None = None  # the value, if it is a container that was followed to its end
        self._text: bytearray | None = bytearray()  # the key, or else the value so far; None when it is let go

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the document."""
        position = 0
        while position < len(data) and not self._ended:
            if self._at.in_string or self._at.depth > 1:
                end = self._at.skip(data, position)
                self._keep(data, position, end)
                position = end
            elif self._at.depth:
                position = self._structure(data, position)
            else:
                position = self._start(data, position)

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Yield what is kept of the top-level members that have ended, undecoded."""
        return ((key[1:-1].decode(), value) for key, value in self._root.members.items())

    def document(self) -> bytes:
        """Return what is kept of the top-level members that have ended, as a JSON object."""
        return self._root.json()

    def _start(self, data: bytes, position: int) -> int:
        """Find the beginning of the document; return where reading goes on."""
        match = _AT_KEY.search(data, position)
        if match is None:
            return len(data)
        self._at.depth = 1
        self._ended = match[0] != b"{"  # nothing else has members
        return match.end()

    def _structure(self, data: bytes, position: int) -> int:
        """Read up to and with the next structural character; return where reading goes on."""
        if self._in.is_array:
            position = self._past_dull(data, position)
        match = (_AT_KEY if self._in_key else _AT_VALUE).search(data, position)
        start, end = match.span() if match else (len(data), len(data))
        character = data[start:end]
        self._keep(data, position, start)
        if character == b'"':
            self._at.in_string = True
            if self._in_key:
                self._text = bytearray()  # however far a key is indented
            self._keep(data, start, end)
        elif character == b":":
            self._key_ends()
        elif character in (b"{", b"["):
            if not self._follow(character):
                self._keep(data, start, end)
                self._at.depth += 1
        elif character:
            self._value_ends()
            if character != b",":
                self._container_ends(character)
        return end

    def _past_dull(self, data: bytes, position: int) -> int:
        """Pass over many elements at once: where objects are looked for, there may be a million numbers."""
        wanted = self._wanted
        if wanted is None or wanted.place is not None or wanted.element or not self._is_blank:
            return position
        dull = _DULL.match(data, position)
        return dull.end() if dull else position

    def _keep(self, data: bytes, start: int, end: int) -> None:
        if self._text is None:
            return
        part = data[start:end] if self._text else data[start:end].lstrip()
        if len(self._text) + len(part) > (_KEY if self._in_key else MEMBER):
            self._text = None
        else:
            self._text += part

    @property
    def _is_blank(self) -> bool:
        """Whether nothing has been seen yet of the value."""
        return self._text is not None and not self._text and self._reduced is None

    def _begin(self) -> None:
        """Be ready for the next element, or the next key."""
        self._in_key = not self._in.is_array
        self._wanted = None if self._in_key else self._in.wanted.element
        self._reduced = None
        self._text = bytearray()

    def _key_ends(self) -> None:
        self._in_key = False
        self._in.key = bytes(self._text).strip() if self._text is not None else b""
        self._wanted = self._in.wanted.quoted.get(self._in.key)
        self._text = None if self._wanted is None else bytearray()

    def _follow(self, bracket: bytes) -> bool:
        """Go into a container if something is wanted of what is in it."""
        wanted = self._wanted
        if wanted is None or not self._is_blank:
            return False
        is_array = bracket == b"["
        if not (wanted.element if is_array else wanted.members):
            return False
        self._around.append(self._in)
        self._in = _Container(wanted, is_array=is_array)
        self._begin()
        return True

    def _value_ends(self) -> None:
        if self._wanted is not None:
            value = None
            if self._text is not None and (self._reduced or self._wanted.place is not None):
                # Were there anything behind a container, that would be no JSON, and this makes none of it either.
                value = (self._reduced or b"") + bytes(self._text).strip()
            self._in.keep(value)
            if len(self._in.elements) > ARRAY:
                self._ended = self.too_large = True
        self._begin()

    def _container_ends(self, bracket: bytes) -> None:
        fits = bracket == (b"]" if self._in.is_array else b"}")
        if not self._around or not fits:
            self._ended = True
            self.complete = fits
            return
        ended, self._in = self._in, self._around.pop()
        self._in_key = False
        self._wanted = ended.wanted
        self._reduced = ended.json() if ended.wanted.place is not None or ended.members or ended.elements else b""
        self._text = bytearray()
