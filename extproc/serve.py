"""The life of the server: start, say so, serve, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import uvloop
from pythonjsonlogger.json import JsonFormatter

from extproc.exposition import MetricsServer
from extproc.formats import finder
from extproc.metrics import Metrics
from extproc.settings import Settings
from extproc.stream import Observer
from extproc.transport import Transport

_log = logging.getLogger(__name__)


class ServeError(Exception):
    """The server cannot start; the message says why."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal cuts the draining short.

    Raises:
        ServeError: an address cannot be listened on.
    """
    _log_as_json(settings.log_level)
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    metrics = Metrics()
    transport = _transport(settings, Observer(settings, metrics, finder(settings.formats, settings.detect_hosts)))
    try:
        metrics_server = MetricsServer(settings.metrics, metrics.exposition)
    except OSError as error:
        raise ServeError(f"cannot serve metrics on {settings.metrics}: {error.strerror or error}") from None
    try:
        address = await transport.start(settings.listen)
    except OSError as error:
        metrics_server.close()
        raise ServeError(f"cannot listen on {settings.listen}: {error.strerror or error}") from None
    stopping = [asyncio.Event(), asyncio.Event()]
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _set_next, stopping)
    sys.stderr.write(f"extproc is ready: ext_proc on {address}, metrics on {metrics_server.url}\n")
    sys.stderr.flush()
    await stopping[0].wait()
    _log.info("draining", extra={"seconds": settings.drain_seconds})
    await transport.stop(settings.drain_seconds, stopping[1])
    metrics_server.close()
    _log.info("stopped")


def _transport(settings: Settings, observer: Observer) -> Transport:
    # Only the one that is used is imported: gRPC takes memory and time to start.
    if settings.transport == "grpcio":
        from extproc.transport.grpcio import GrpcioTransport  # noqa: PLC0415

        return GrpcioTransport(observer)
    from extproc.transport.fast import FastTransport  # noqa: PLC0415

    return FastTransport(observer)


def _set_next(events: list[asyncio.Event]) -> None:
    for event in events:
        if not event.is_set():
            event.set()
            return


def _log_as_json(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
