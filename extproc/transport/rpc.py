"""gRPC over HTTP/2, as a server: calls to methods, messages in and out.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

from extproc.transport.http2 import Request, Stream
from extproc.transport.messages import PREFIX_SIZE, Partial, pack_prefix, unpack_prefix
from extproc.transport.status import CallError, Code

_AT_ONCE: Final = 8  # messages of one frame; others have their turn before the next ones
_LONGEST_TEXT: Final = 1000  # of a status, in characters: its frame has to be one that every client takes

# HPACK that refers to the static table alone and leaves the dynamic one as it is: RFC 7541, appendix A.
_CONTENT_TYPE: Final = b"\x0f\x10\x10application/grpc"
_HEADERS: Final = b"\x88" + _CONTENT_TYPE
_POST, _GRPC = "POST", "application/grpc"

_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Handler(Protocol):
    """Answers one call."""

    def receive(self, message: bytes) -> bytes | None:
        """Return the reply to a message, if there is one to send.

        Raises:
            CallError: the call fails.
        """

    def end(self) -> bool:
        """Take note that the client sends no more; return whether the call is over with that. Raises as `receive`."""

    def close(self) -> None:
        """Take note that the call is over, however it ended. Called once."""


class Invocation(NamedTuple):
    """A call, as its handler sees it."""

    metadata: Mapping[str, str]
    send: Callable[[bytes], None]
    """Sends a message that answers none."""


Methods = Mapping[str, Callable[[Invocation], Handler]]
"""What is served, by the path `/package.Service/Method`."""


class Call:
    """Follows one call on its HTTP/2 stream."""

    __slots__ = ("_answered", "_handler", "_held", "_partial", "_refusal", "_stream")

    def __init__(self, methods: Methods, request: Request, stream: Stream) -> None:
        self._stream = stream
        self._handler: Handler | None = None
        self._partial: Partial | None = None  # messages that did not come one by one
        self._held = 0  # bytes of it that are counted
        self._answered = False
        self._refusal: bytes | None = None  # of what is no gRPC: the status, told when the request is whole
        if request.method != _POST:
            self._refusal = b"405"
        elif not request.headers.get("content-type", "").startswith(_GRPC):
            self._refusal = b"415"
        elif (method := methods.get(request.path)) is None:
            self._finish(Code.UNIMPLEMENTED, f"no method {request.path}")
        else:
            if timeout := request.headers.get("grpc-timeout"):
                self._expire(timeout)
            self._handler = method(Invocation(request.headers, self.send))

    def data(self, data: bytes, start: int, end: int) -> None:
        """See http2.Receiver."""
        # Nearly all messages come in a frame of their own.
        first = start + PREFIX_SIZE
        if self._partial is None and first <= end and unpack_prefix(data, start) == (0, end - first):
            self._message(data[first:end])
        elif self._handler is not None:
            if self._partial is None:
                self._partial = Partial()
            self._partial.add(data, start, end)
            self.proceed()

    def proceed(self) -> None:
        """See http2.Receiver."""
        partial = self._partial
        if partial is None:
            return
        try:
            for _ in range(_AT_ONCE):
                if (message := partial.next()) is None:
                    break
                self._message(message)
                if self._handler is None:
                    return
            else:
                self._stream.pause()
        except CallError as error:
            self._finish(error.code, str(error))
            return
        self._hold(partial.trim())

    def end(self) -> None:
        """See http2.Receiver."""
        if self._refusal is not None:
            self._stream.headers(b"\x08\x03" + self._refusal)  # `:status` by its name in the static table
            self._stream.data(b"only gRPC is served here\n")
            self._stream.end(b"")
        if self._handler is None:
            return
        if self._partial is not None:
            self._finish(Code.INTERNAL, "the last message is not whole")
            return
        try:
            over = self._handler.end()
        except CallError as error:
            self._finish(error.code, str(error))
        else:
            if over:
                self._finish(Code.OK)

    def lost(self) -> None:
        """See http2.Receiver."""
        self._close()

    def expired(self) -> None:
        """See http2.Receiver."""
        self._finish(Code.DEADLINE_EXCEEDED, "the call's time is over")

    def send(self, message: bytes) -> None:
        """Send a message."""
        if not self._answered:
            self._answered = True
            self._stream.headers(_HEADERS)
        self._stream.data(pack_prefix(0, len(message)) + message)

    def _message(self, message: bytes) -> None:
        if self._handler is None:
            return
        try:
            reply = self._handler.receive(message)
        except CallError as error:
            self._finish(error.code, str(error))
        else:
            if reply is not None:
                self.send(reply)
            else:
                self._stream.spoke = True  # it has been served, though Envoy wants no reply to it

    def _hold(self, size: int) -> None:
        """Count so many bytes of messages that have not been taken."""
        added, self._held = size - self._held, size
        if not size:
            self._partial = None
        if not self._stream.hold(added):
            self._finish(Code.RESOURCE_EXHAUSTED, "too many bytes of messages that are not whole")

    def _expire(self, timeout: str) -> None:
        if found := _TIMEOUT.fullmatch(timeout):
            self._stream.expire_at(monotonic() + int(found[1]) * _UNITS[found[2]])

    def _finish(self, code: Code, message: str = "") -> None:
        self._close()
        block = b"" if self._answered else _HEADERS
        block += _literal(b"grpc-status", b"%d" % code)
        if message:
            block += _literal(b"grpc-message", quote(message[:_LONGEST_TEXT], safe=" /,:;.()").encode())
        if code is Code.UNIMPLEMENTED:
            block += _literal(b"grpc-accept-encoding", b"identity")
        self._stream.end(block)

    def _close(self) -> None:
        handler, self._handler = self._handler, None
        if self._partial is not None:
            self._partial = None
            self._stream.hold(-self._held)
            self._held = 0
        if handler is not None:
            handler.close()


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a header that is not to be indexed: RFC 7541, section 6.2.2."""
    return b"\0" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    """Return the length of a string that is not Huffman-coded: RFC 7541, section 5.1, with a prefix of 7 bits."""
    rest = len(text) - 127
    if rest < 0:
        return bytes((len(text),))
    encoded = bytearray((127,))
    while rest >= 128:  # noqa: PLR2004 - seven bits a byte
        encoded.append(rest & 127 | 128)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)
