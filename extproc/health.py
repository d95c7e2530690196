"""Asks a server on this host for its gRPC health, as a container's health check does.

One call on an HTTP/2 connection, by hand: what runs every few seconds in the memory of the server's container should
not load gRPC, which takes more than all the rest.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from time import monotonic
from urllib.parse import unquote

from grpc_health.v1.health_pb2 import HealthCheckResponse
from hpack import Decoder, Encoder, HPACKError

from extproc.settings import Settings, host_and_port
from extproc.tls import Files, TlsError, files
from extproc.transport.http2 import frames

# A server that listens on all addresses is asked on this host's own.
_OWN = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here

_NO_GRPC = "what answers is no gRPC server"

_STREAM = 1
_EMPTY_MESSAGE = bytes(5)  # not compressed, no bytes: it asks for the server as a whole
_REQUEST = (
    (":method", "POST"),
    (":path", "/grpc.health.v1.Health/Check"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)


class HealthError(Exception):
    """The server does not serve; the message says what it said instead."""


def check(settings: Settings, seconds: float) -> None:
    """Ask the server with these settings whether it serves.

    Raises:
        HealthError: it says that it does not, or says nothing in time.
    """
    deadline = monotonic() + seconds
    for address in _addresses(settings):
        try:
            with _connected(address, deadline) as plain, _secured(plain, files(settings)) as connection:
                answer = _asked(_Connection(connection, deadline))
        except TimeoutError:
            raise HealthError(f"{address}: no answer in {seconds} s") from None
        except ssl.SSLCertVerificationError as error:
            raise HealthError(f"{address}: its certificate cannot be trusted: {error.verify_message}") from None
        except OSError as error:
            raise HealthError(f"{address}: {error.strerror or error}") from None
        except HPACKError:
            raise HealthError(f"{address}: {_NO_GRPC}") from None
        except (TlsError, HealthError) as error:
            raise HealthError(f"{address}: {error}") from None
        if answer != HealthCheckResponse.SERVING:
            raise HealthError(f"{address}: {HealthCheckResponse.ServingStatus.Name(answer)}")


def _addresses(settings: Settings) -> list[str]:
    """Return the addresses of all workers that have one of their own."""
    if settings.workers == 1 or not settings.listen.startswith("unix:"):
        return [settings.listen]
    return [f"{settings.listen}.{number}" for number in range(settings.workers)]


def _connected(address: str, deadline: float) -> socket.socket:
    timeout = max(0.001, deadline - monotonic())
    if not address.startswith("unix:"):
        host, port = host_and_port(address)
        return socket.create_connection((_OWN.get(host, host), port), timeout)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        connection.connect(address.removeprefix("unix:"))
    except OSError:
        connection.close()
        raise
    return connection


def _secured(connection: socket.socket, files: Files | None) -> socket.socket:
    """Return a connection with TLS, if the server speaks it, to the owner of the very certificate it is to have."""
    if files is None:
        return connection
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # its own certificate will do, whoever issued it
    context.set_alpn_protocols(["h2"])
    files.trust(context)
    if files.client_ca:
        files.identify(context)
    return context.wrap_socket(connection)


@dataclass
class _Connection:
    """Frames to and from a server, until a time."""

    socket: socket.socket
    deadline: float

    def send(self, data: bytes) -> None:
        """Send whole frames."""
        self.socket.sendall(data)

    def receive(self) -> tuple[int, int, int, bytes]:
        """Return the type, the flags, the stream and the payload of a frame."""
        high, low, kind, flags, stream = frames.unpack_header(self._exactly(frames.HEADER_SIZE))
        length = high << 8 | low
        if length > frames.DEFAULT_FRAME:
            raise HealthError(_NO_GRPC)
        return kind, flags, stream, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            remaining = self.deadline - monotonic()
            if remaining <= 0:
                raise TimeoutError
            self.socket.settimeout(remaining)
            if not (part := self.socket.recv(size - len(found))):
                raise HealthError("it closed the connection")
            found += part
        return found


def _asked(connection: _Connection) -> int:
    """Return the server's answer."""
    scheme = "https" if isinstance(connection.socket, ssl.SSLSocket) else "http"
    block = Encoder().encode([*_REQUEST[:1], (":scheme", scheme), *_REQUEST[1:]])
    connection.send(
        frames.PREFACE
        + frames.settings({})
        + frames.header(len(block), frames.HEADERS, frames.END_HEADERS, _STREAM)
        + block
        + frames.header(len(_EMPTY_MESSAGE), frames.DATA, frames.END_STREAM, _STREAM)
        + _EMPTY_MESSAGE
    )
    decoder, headers, body = Decoder(), dict[str, str](), b""
    while True:
        kind, flags, stream, payload = connection.receive()
        if kind == frames.SETTINGS and not flags & frames.ACK:
            connection.send(frames.header(0, frames.SETTINGS, frames.ACK, 0))
        elif kind in (frames.RST_STREAM, frames.GOAWAY):
            raise HealthError("it takes no calls")
        elif stream == _STREAM and kind == frames.HEADERS:
            headers |= {str(name): str(value) for name, value in decoder.decode(payload)}
        elif stream == _STREAM and kind == frames.DATA:
            body += payload
        if stream == _STREAM and flags & frames.END_STREAM and kind in (frames.HEADERS, frames.DATA):
            break
    if (status := headers.get("grpc-status")) != "0":
        raise HealthError(f"gRPC status {status}: {unquote(headers.get('grpc-message', ''))}")
    answer: int = HealthCheckResponse.FromString(body[len(_EMPTY_MESSAGE) :]).status
    return answer
