"""Header blocks to requests: HPACK (RFC 7541) by the hpack library, and what RFC 9113, section 8 asks of a request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hpack import Decoder, HPACKError

from extproc.transport.http2.errors import ConnectionFault, ErrorCode

LONGEST_BLOCK = 32 * 1024
"""Longest header block taken, in bytes, as it comes."""
LONGEST_LIST = 64 * 1024
"""Longest list of headers taken, in bytes, decoded and counted as RFC 9113, section 6.5.2 does."""

# Envoy's blocks of one connection are all alike but for what tracing puts in, and their headers are short.
_REMEMBERED = 16
_LONGEST_REMEMBERED = 2048  # bytes of block and headers

_ENTRY_SIZE = 32  # beside the name and the value of a header
_SIZE_UPDATE = 0x20  # with the two bits above it clear, at the start of a block: RFC 7541, sections 4.2 and 6.3

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # a token in lower case: RFC 9110, 5.6.2 and RFC 9113, 8.2.1
_BAD_VALUE = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z")  # RFC 9113, section 8.2.1
_LENGTH = re.compile("[0-9]{1,18}")
_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_CONNECTION = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))


@dataclass(frozen=True, slots=True)
class Request:
    """The headers of a request."""

    method: str
    path: str
    headers: Mapping[str, str]
    """All but the pseudo-headers; several of one name are joined by commas."""
    length: int | None
    """Content-Length."""
    size: int
    """Bytes of the headers, counted as RFC 9113, section 6.5.2 does."""


class HeaderReader:
    """Decodes the header blocks of one connection, in their order."""

    def __init__(self) -> None:
        self._decoder = Decoder(LONGEST_LIST)
        self._remembered: dict[bytes, Request] = {}

    def request(self, block: bytes) -> Request | None:
        """Return the request that a block opens; `None` if it is malformed (RFC 9113, section 8.1.1).

        Raises:
            ConnectionFault: it is no HPACK, or too long; the blocks after it cannot be decoded.
        """
        try:
            return self._remembered[block]
        except KeyError:
            pass
        headers, changed = self._decode(block)
        request = _request(headers)
        if changed or request is None or len(block) + request.size > _LONGEST_REMEMBERED:
            return request
        if len(self._remembered) < _REMEMBERED:
            # As it left the table as it was, it will mean the same and leave it again, until the table changes.
            self._remembered[block] = request
        return request

    def trailers(self, block: bytes) -> bool:
        """Take the trailers of a request; return whether they are well-formed. Raises as `request`."""
        headers, _ = self._decode(block)
        return _fields(headers) is not None

    def _newest(self) -> object:
        # Whatever changes the dynamic table puts an entry in front of it, or empties it, or is an update of its size.
        entries = self._decoder.header_table.dynamic_entries
        return entries[0] if entries else None

    def _decode(self, block: bytes) -> tuple[list[tuple[bytes, bytes]], bool]:
        """Return the headers, and whether the dynamic table has changed."""
        newest = self._newest()
        try:
            headers: list[tuple[bytes, bytes]] = [*self._decoder.decode(block, raw=True)]
        except HPACKError as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, type(error).__name__) from None
        changed = self._newest() is not newest or block[0] & 0xE0 == _SIZE_UPDATE
        if changed:
            # And with it the meaning of every block that refers to it.
            self._remembered.clear()
        return headers, changed


def _request(headers: list[tuple[bytes, bytes]]) -> Request | None:
    pseudo: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in _PSEUDO:
            break
        if name in pseudo:
            return None
        pseudo[name] = value
    fields = _fields(headers[len(pseudo) :])
    if fields is None or any(_BAD_VALUE.search(value) for value in pseudo.values()):
        return None
    if not (pseudo.get(b":method") and pseudo.get(b":scheme") and pseudo.get(b":path")):
        return None
    length = fields.get("content-length")
    if length is not None and not _LENGTH.fullmatch(length):
        return None
    return Request(
        pseudo[b":method"].decode("latin-1"),
        pseudo[b":path"].decode("latin-1"),
        fields,
        None if length is None else int(length),
        sum(len(name) + len(value) + _ENTRY_SIZE for name, value in headers),
    )


def _fields(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str] | None:
    """Return headers that are no pseudo-headers; `None` if one of them must not be there."""
    fields: dict[str, str] = {}
    for raw_name, raw_value in headers:
        if not _NAME.fullmatch(raw_name) or _BAD_VALUE.search(raw_value) or raw_name in _CONNECTION:
            return None
        if raw_name == b"te" and raw_value != b"trailers":
            return None
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields
