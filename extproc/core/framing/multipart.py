"""Forms with files in them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

import msgspec

from extproc.core.facts import Gap
from extproc.core.framing.unfinished import Unfinished

FIELD = 1024
"""Longest field taken, in bytes; a longer one leaves a gap."""

_HEAD = 16 * 1024
"""Longest head of a part looked at, in bytes; a part with a longer one is skipped."""

_PADDING = 64
"""Most white space after a delimiter, in bytes."""

_LINE_REST = re.compile(rb"--|[ \t]{0,%d}\r?\n" % _PADDING)
_LINE_REST_BEGUN = re.compile(rb"(?:-|[ \t]{0,%d}\r?)\Z" % _PADDING)
_HEAD_END = re.compile(rb"\n\r?\n")
_DISPOSITION = re.compile(r"\ncontent-disposition[ \t]*:[ \t]*form-data[ \t]*(;[^\r\n]*)", re.IGNORECASE)
_PARAMETER = re.compile(r';[ \t]*+([^=;"\s]++)[ \t]*+=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|([^;"\s]*+))')


def boundary(content_type: str) -> bytes | None:
    """Read the boundary of a form out of a Content-Type header; `None` if there is none, or it is no form."""
    kind, _, _ = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        return None
    found = _parameters(content_type[len(kind) :]).get("boundary", "").rstrip()
    return found.encode(errors="replace") or None


class Multipart:
    """A form (multipart/form-data, RFC 7578): yields at its end one document with the wanted text fields.

    Files, which are parts with a file name, are skipped in constant memory. Of several fields with one name the last
    one is taken. Lines may end with LF alone.
    """

    def __init__(self, limit: int, boundary: bytes, wanted: Collection[str]) -> None:
        self._delimiter = b"\n--" + boundary
        self._wanted = frozenset(wanted)
        self._field_limit = min(limit, FIELD)
        self._fields: dict[str, str] = {}
        self._held = bytearray(b"\n")  # always begins with the end of the line before
        self._in_head = False
        self._name: str | None = None  # of the wanted field whose content is being read
        self._content = Unfinished(self._field_limit + len(b"\n\r"))
        self._begun = False
        self._closed = False

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:
        """See `Framing`."""
        self._held += data
        while not self._closed:
            if self._in_head:
                if not self._read_head():
                    return
            elif self._read_content():
                yield from self._take()
            else:
                return
        self._held.clear()

    def end(self) -> Iterator[bytes | Gap]:
        """See `Framing`."""
        if not self._begun:
            yield Gap.UNPARSABLE
            return
        yield msgspec.json.encode(self._fields)
        if not self._closed:
            yield Gap.TRUNCATED

    def _read_head(self) -> bool:
        """Read the head of a part; `False` if more bytes are needed."""
        end = _HEAD_END.search(self._held)
        length = end.start() if end else len(self._held) - len(b"\n\r\n")
        if length > _HEAD:
            self._in_head = False
            return True
        if end is None:
            return False
        self._in_head = False
        name = _field(self._held[:length].decode(errors="replace"))
        self._name = name if name in self._wanted else None
        del self._held[: end.end() - 1]
        return True

    def _read_content(self) -> bool:
        """Read the content of a part, or what is before the first one; `False` if more bytes are needed."""
        found = self._held.find(self._delimiter)
        while found >= 0:
            end = found + len(self._delimiter)
            if rest := _LINE_REST.match(self._held, end):
                self._begun = True
                self._closed = self._held.startswith(b"--", end)
                self._let_go(found)
                del self._held[: rest.end() - found - 1]
                self._in_head = True
                return True
            if _LINE_REST_BEGUN.match(self._held, end):
                self._let_go(found)
                return False
            found = self._held.find(self._delimiter, end)  # it only began alike
        self._let_go(len(self._held) - len(self._delimiter) + 1)
        return False

    def _let_go(self, length: int) -> None:
        """Pass the first bytes on to the content."""
        if length > 0:
            if self._name is not None:
                self._content.add(bytes(self._held[:length]))
            del self._held[:length]

    def _take(self) -> Iterator[bytes | Gap]:
        """End the content of a field."""
        if self._name is None:
            return
        [content] = self._content.take()
        if not isinstance(content, Gap):
            content = content[1:].removesuffix(b"\r")
        if isinstance(content, Gap) or len(content) > self._field_limit:
            yield Gap.TOO_LARGE
        else:
            self._fields[self._name] = content.decode(errors="replace")
        self._name = None


def _field(head: str) -> str | None:
    """Return the name of the text field that a part's head begins."""
    disposition = _DISPOSITION.search(head)
    parameters = _parameters(disposition[1]) if disposition else {}
    return None if {"filename", "filename*"} & parameters.keys() else parameters.get("name")


def _parameters(text: str) -> dict[str, str]:
    return {found[1].lower(): found[2] or found[3] or "" for found in _PARAMETER.finditer(text)}
