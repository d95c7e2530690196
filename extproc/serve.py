"""The life of the server: start, say so, serve, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys

import uvloop
from pythonjsonlogger.json import JsonFormatter

from extproc.exposition import MetricsServer
from extproc.formats import finder
from extproc.listening import bound, shown
from extproc.metrics import Metrics
from extproc.settings import Settings
from extproc.stream import Observer
from extproc.tls import Certificates, TlsError, files
from extproc.transport import Transport

_TURN_SECONDS = 0.0005

_log = logging.getLogger(__name__)


class ServeError(Exception):
    """The server cannot start; the message says why."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal cuts the draining short.

    Raises:
        ServeError: an address cannot be listened on, or a certificate not be used.
    """
    _log_as_json(settings.log_level)
    try:
        certificates = Certificates(found) if (found := files(settings)) else None
    except TlsError as error:
        raise ServeError(str(error)) from None
    if settings.workers > 1:
        from extproc.workers import supervise  # noqa: PLC0415 - only then

        supervise(settings, certificates)
    else:
        uvloop.run(_serve(settings, certificates))


async def _serve(settings: Settings, certificates: Certificates | None) -> None:
    # A message that comes while metrics are written gets its turn so soon: docs/decisions/0006-workers.md
    sys.setswitchinterval(_TURN_SECONDS)
    metrics = Metrics()
    transport = _transport(settings, observer(settings, metrics), certificates)
    metrics_server = MetricsServer(metrics_listener(settings), metrics.exposition)
    try:
        address = await transport.start(settings.listen)
    except OSError as error:
        metrics_server.close()
        raise cannot_listen(settings, error) from None
    stopping = Stopping()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.next)
    say_ready(settings, address, metrics_server.listener)
    await stopping.asked.wait()
    await drain(transport, settings.drain_seconds, stopping.hurry)
    metrics_server.close()


class Stopping:
    """What a server is told: first to stop, then to be quick about it."""

    def __init__(self) -> None:
        self.asked, self.hurry = asyncio.Event(), asyncio.Event()

    def next(self) -> None:
        """Tell it to stop; if it was told before, to hurry."""
        (self.hurry if self.asked.is_set() else self.asked).set()


async def drain(transport: Transport, seconds: float, hurry: asyncio.Event) -> None:
    """Stop a transport, and say so."""
    _log.info("draining", extra={"seconds": seconds})
    await transport.stop(seconds, hurry)
    _log.info("stopped")


def observer(settings: Settings, metrics: Metrics) -> Observer:
    """Return what the streams of a process share."""
    return Observer(settings, metrics, finder(settings.formats, settings.detect_hosts))


def metrics_listener(settings: Settings) -> socket.socket:
    """Return a socket that listens where metrics are to be served.

    Raises:
        ServeError: it cannot.
    """
    try:
        listener = bound(settings.metrics)
        listener.listen()
    except OSError as error:
        raise ServeError(f"cannot serve metrics on {settings.metrics}: {error.strerror or error}") from None
    return listener


def cannot_listen(settings: Settings, error: OSError) -> ServeError:
    """Return what is wrong if the server cannot listen where it is to."""
    return ServeError(f"cannot listen on {settings.listen}: {error.strerror or error}")


def say_ready(settings: Settings, address: str, metrics: socket.socket) -> None:
    """Say that the server is ready, and where."""
    url = f"http://{shown(settings.metrics, metrics)}/metrics"
    sys.stderr.write(f"extproc is ready: ext_proc on {address}, metrics on {url}\n")
    sys.stderr.flush()


def _transport(settings: Settings, observer: Observer, certificates: Certificates | None) -> Transport:
    # Only the one that is used is imported: gRPC takes memory and time to start.
    if settings.transport == "grpcio":
        from extproc.transport.grpcio import GrpcioTransport  # noqa: PLC0415

        return GrpcioTransport(observer, certificates)
    from extproc.transport.fast import FastTransport  # noqa: PLC0415

    return FastTransport(observer, certificates.context if certificates else None)


def _log_as_json(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
