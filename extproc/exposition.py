"""`GET /metrics` over HTTP, in threads of its own so that a slow reader holds up nobody."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from socket import socket
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from extproc.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_READ_SECONDS = 10

_log = logging.getLogger(__name__)


class MetricsServer:
    """Serves a text at /metrics until it is closed."""

    def __init__(self, listener: socket, text: Callable[[], bytes]) -> None:
        """Serve whoever connects to a socket that is bound."""
        self.listener = listener
        self._server = _Server(listener, text)
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, listener: socket, text: Callable[[], bytes]) -> None:
        super().__init__(listener.getsockname(), _Quiet, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        # As WSGIServer does it, without asking DNS for this host's name.
        self.server_name, self.server_port = listener.getsockname()[:2]
        self.setup_environ()
        self.set_app(_app(text))
        self.server_activate()

    def handle_error(self, *_: object) -> None:
        """Log a fault; a client that is slow or gone is none."""
        fault = sys.exception()
        if not isinstance(fault, OSError):
            _log.error("fault in this server", exc_info=fault)


class _Quiet(WSGIRequestHandler):
    timeout = _READ_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""


def _app(text: Callable[[], bytes]) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            status, content_type, body = "404 Not Found", "text/plain", b"metrics are at /metrics\n"
        elif environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            status, content_type, body = "405 Method Not Allowed", "text/plain", b"only GET is allowed\n"
        else:
            status, content_type, body = "200 OK", CONTENT_TYPE, text()
        start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return app
