"""AWS event stream."""

from __future__ import annotations

import binascii
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress

import msgspec

from extproc.core.document import Reader, text
from extproc.core.facts import Gap

_PRELUDE = struct.Struct(">III")  # length of the message, length of its headers, CRC of these two
_CHECKED = 8  # bytes of the prelude that its CRC is of
_CRC = struct.Struct(">I")
_AROUND = _PRELUDE.size + _CRC.size

_LENGTHS = (0, 0, 1, 2, 4, 8, None, None, 8, 16)
"""Length of a header's value by its type; two types bring their own length."""
_STRING = 7

_wrapped = Reader(("bytes",))
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class EventStream:
    """Messages of application/vnd.amazon.eventstream (https://smithy.io/2.0/aws/amazon-eventstream.html).

    The payload of an event is a document. One with a member `bytes` carries another document in Base64 in it: the
    native event of a model (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_PayloadPart.html). An
    exception or error is a document with a member `error`.

    A message longer than `limit` bytes is skipped. Where a checksum does not hold nothing more is read, as no client
    does.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()
        self._skip = 0  # bytes of a skipped message that are still to come
        self._closed = False

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:
        """See `Framing`."""
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._held += data[skipped:]
        while len(self._held) >= _PRELUDE.size and not self._closed:
            length, headers, crc = _PRELUDE.unpack_from(self._held)
            if zlib.crc32(self._held[:_CHECKED]) != crc or headers + _AROUND > length:
                yield self._close()
            elif length > self._limit:
                skipped = min(length, len(self._held))
                del self._held[:skipped]
                self._skip = length - skipped
                yield Gap.TOO_LARGE
            elif len(self._held) < length:
                return
            else:
                message = bytes(self._held[:length])
                del self._held[:length]
                if zlib.crc32(message[: -_CRC.size]) != _CRC.unpack_from(message, length - _CRC.size)[0]:
                    yield self._close()
                else:
                    start = _PRELUDE.size + headers
                    yield from _read(message[_PRELUDE.size : start], message[start : -_CRC.size])
        if self._closed:
            self._held.clear()

    def end(self) -> Iterator[bytes | Gap]:
        """See `Framing`."""
        if self._held or self._skip:
            yield Gap.TRUNCATED

    def _close(self) -> Gap:
        self._closed = True
        return Gap.UNPARSABLE


def _read(raw_headers: bytes, payload: bytes) -> Iterator[bytes | Gap]:
    """Yield the document in a message."""
    headers = _headers(raw_headers)
    if headers is None:
        yield Gap.UNPARSABLE
    elif headers.get(":message-type") in ("exception", "error"):
        yield _error(headers, payload)
    elif payload:
        yield _unwrapped(payload)


def _headers(data: bytes) -> Mapping[str, str] | None:
    """Read the headers that are strings; `None` if they are not well formed."""
    headers: dict[str, str] = {}
    position = 0
    try:
        while position < len(data):
            kind = position + 1 + data[position]
            name = data[position + 1 : kind]
            position = kind + 1
            length = _LENGTHS[data[kind]]
            if length is None:
                (length,) = struct.unpack_from(">H", data, position)
                position += 2
            if data[kind] == _STRING:
                headers[name.decode(errors="replace")] = data[position : position + length].decode(errors="replace")
            position += length
    except (IndexError, struct.error):
        return None
    return headers if position == len(data) else None


def _error(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return a document with the name of the error and what its payload says."""
    code = headers.get(":exception-type") or headers.get(":error-code") or headers[":message-type"]
    error: dict[str, str | msgspec.Raw] = {"code": code}
    if message := headers.get(":error-message"):
        error["message"] = message
    with suppress(msgspec.MsgspecError, RecursionError, UnicodeDecodeError):  # it may be empty, or anything
        error.update(_members(payload))
    return msgspec.json.encode({"error": error})


def _unwrapped(payload: bytes) -> bytes | Gap:
    """Return the document that a payload carries: itself or the one in its member `bytes`."""
    if b'"bytes"' not in payload:
        return payload
    document = _wrapped.read(payload)
    if document is None or (encoded := text(*document.get("bytes", [None]))) is None:
        return payload
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        return Gap.UNPARSABLE
