"""The gRPC health service, for the fast transport.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from extproc.transport.rpc import Invocation, Methods
from extproc.transport.status import CallError, Code

_SERVICE = "/grpc.health.v1.Health/"


class Health:
    """Says of each service whether it serves, and tells those who watch when that changes."""

    def __init__(self, *services: str) -> None:
        self._serving = dict.fromkeys(("", *services), True)
        self._watches: set[_Watch] = set()

    @property
    def methods(self) -> Methods:
        """The methods of the service."""
        return {
            f"{_SERVICE}Check": lambda _: _Check(self),
            f"{_SERVICE}Watch": lambda invocation: _Watch(self, invocation),
        }

    def stop(self) -> None:
        """Say of all that they do not serve."""
        self._serving = dict.fromkeys(self._serving, False)
        for watch in list(self._watches):
            watch.tell()

    def reply(self, service: str) -> bytes | None:
        """Return the message that says whether a service serves; `None` if there is no such service."""
        if service not in self._serving:
            return None
        status = HealthCheckResponse.SERVING if self._serving[service] else HealthCheckResponse.NOT_SERVING
        return _encoded(status)

    def watch(self, watch: _Watch) -> None:
        """Tell it when something changes."""
        self._watches.add(watch)

    def unwatch(self, watch: _Watch) -> None:
        """Tell it no more."""
        self._watches.discard(watch)


class _Question:
    """A call with one message, the question."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._service: str | None = None

    def _asked(self, message: bytes) -> str:
        if self._service is not None:
            raise CallError(Code.INTERNAL, "more than one request")
        try:
            self._service = HealthCheckRequest.FromString(message).service
        except DecodeError:
            raise CallError(Code.INTERNAL, "the message is no HealthCheckRequest") from None
        return self._service

    def end(self) -> bool:
        """See rpc.Handler."""
        if self._service is None:
            raise CallError(Code.INTERNAL, "no request")
        return True

    def close(self) -> None:
        """See rpc.Handler."""


class _Check(_Question):
    def receive(self, message: bytes) -> bytes:
        """See rpc.Handler."""
        reply = self._health.reply(self._asked(message))
        if reply is None:
            raise CallError(Code.NOT_FOUND, "unknown service")
        return reply


class _Watch(_Question):
    def __init__(self, health: Health, invocation: Invocation) -> None:
        super().__init__(health)
        self._send = invocation.send

    def receive(self, message: bytes) -> bytes:
        """See rpc.Handler."""
        reply = self._health.reply(self._asked(message))
        self._health.watch(self)
        return reply or _encoded(HealthCheckResponse.SERVICE_UNKNOWN)

    def tell(self) -> None:
        """Send what holds now."""
        if reply := self._health.reply(self._service or ""):
            self._send(reply)

    def end(self) -> bool:
        """Go on until the client has enough of it."""
        return not super().end()

    def close(self) -> None:
        """See rpc.Handler."""
        self._health.unwatch(self)


def _encoded(status: int) -> bytes:
    encoded: bytes = HealthCheckResponse(status=status).SerializeToString()
    return encoded
