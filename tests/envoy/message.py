"""HTTP/1.1 messages as they come in over a socket, for both ends of an exchange through Envoy."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256

import h11

SECONDS = 20
"""How long anything may take; only a hung test takes that long."""

_READ = 1024 * 1024
_LONG = 4096

# Of these the values differ from request to request: only that they are there is compared.
_VARYING = ("date", "x-request-id", "x-envoy-expected-rq-timeout-ms")
# Envoy leaves it out when the response begins before the request has ended inside Envoy. With us that is a little
# later, when we have answered the message that tells the end, and this upstream may be quicker.
_UNSURE = "x-envoy-upstream-service-time"

Fields = list[tuple[str, str]]


@dataclass
class Message:
    """A request or a response, as far as it has come."""

    start: str = ""
    """Method and target, or status."""
    headers: Fields = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: Fields = field(default_factory=list)
    informational: list[tuple[str, Fields]] = field(default_factory=list)
    """Responses before the response: 100 Continue, 103 Early Hints."""
    end: str = ""
    """`whole` or `cut`; empty while there may come more."""

    @property
    def seen(self) -> dict[str, object]:
        """What is compared: everything, long bodies as their digest."""
        body = bytes(self.body)
        return {
            "start": self.start,
            "headers": [
                (name, "..." if name in _VARYING else value) for name, value in self.headers if name != _UNSURE
            ],
            "body": body if len(body) < _LONG else (len(body), sha256(body).hexdigest()),
            "trailers": self.trailers,
            "informational": self.informational,
            "end": self.end,
        }


class Incoming:
    """Reads one message from a connection."""

    def __init__(self, reader: asyncio.StreamReader, rest: bytes = b"", response_to: str | None = None) -> None:
        """Read a request, or the response to a request with the method `response_to`."""
        self.message = Message()
        self._reader = reader
        if response_to is None:
            self._connection = h11.Connection(h11.SERVER)
        else:
            self._connection = h11.Connection(h11.CLIENT)
            self._connection.send(h11.Request(method=response_to, target="/", headers=[("host", "any")]))
            self._connection.send(h11.EndOfMessage())
        if rest:
            self._connection.receive_data(rest)

    async def until(self, reached: Callable[[Message], object]) -> Message:
        """Read until the message is so far, or has come to its end."""
        async with asyncio.timeout(SECONDS):
            while not (self.message.end or reached(self.message)):
                await self._advance()
        return self.message

    async def head(self) -> Message:
        """Read the headers."""
        return await self.until(lambda message: message.start)

    async def body(self, text: bytes) -> Message:
        """Read until `text` stands at the end of the body so far."""
        return await self.until(lambda message: message.body.endswith(text))

    async def all(self) -> Message:
        """Read to the end."""
        return await self.until(lambda _: False)

    @property
    def rest(self) -> bytes:
        """What came after the end."""
        return self._connection.trailing_data[0]

    async def _advance(self) -> None:
        try:
            event = self._connection.next_event()
            if event is h11.NEED_DATA:
                self._connection.receive_data(await self._reader.read(_READ))
                return
        except (h11.RemoteProtocolError, ConnectionError):
            self.message.end = "cut"
            return
        self._take(event)

    def _take(self, event: object) -> None:
        message = self.message
        match event:
            case h11.Request():
                message.start = f"{event.method.decode()} {event.target.decode()}"
                message.headers = _fields(event.headers)
            case h11.InformationalResponse():
                message.informational.append((str(event.status_code), _fields(event.headers)))
            case h11.Response():
                message.start = str(event.status_code)
                message.headers = _fields(event.headers)
            case h11.Data():
                message.body += event.data
            case h11.EndOfMessage():
                message.trailers = _fields(event.headers)
                message.end = "whole"
            case _:
                message.end = "cut"


class Connection:
    """One end of a connection, with what both ends can do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Send bytes as they are."""
        async with asyncio.timeout(SECONDS):
            for piece in pieces:
                self._writer.write(piece)
                await self._writer.drain()

    async def gone(self) -> None:
        """Wait until the other side has closed the connection."""
        async with asyncio.timeout(SECONDS):
            try:
                while await self._reader.read(_READ):
                    pass
            except ConnectionError:
                pass

    def close(self) -> None:
        """Close in order, in the middle of whatever is under way."""
        self._writer.close()

    def reset(self) -> None:
        """Close with a TCP reset."""
        linger = (1).to_bytes(4, "little") + bytes(4)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    """Return a whole chunked body; `trailers` are lines with their ends."""
    return b"".join(map(chunk, pieces)) + b"0\r\n" + trailers + b"\r\n"


def head(start: str, *lines: str) -> bytes:
    """Return the start line and the headers of a message."""
    return "\r\n".join((start, *lines, "", "")).encode("latin-1")


def _fields(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
