"""The fast transport: gRPC on our own HTTP/2, on asyncio.

A connection answers all that one read brings and writes once; no message takes a task, a queue or a second turn of the
event loop. docs/decisions/0005-transport.md says why.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import cast

from extproc.listening import bound, bound_unix
from extproc.stream import Observer, Stream
from extproc.transport import SERVICE
from extproc.transport.health import Health
from extproc.transport.http2 import Connection, Room
from extproc.transport.http2.room import MOST_CONNECTIONS
from extproc.transport.messages import Held
from extproc.transport.rpc import Call, Invocation, Methods

_BACKLOG = 1024

_READ = 64 * 1024
"""Most bytes of one read, and with them the work that is done before others have their turn.

And larger pieces of memory go back to the system each time: to get them again costs more than to read.
"""

_ALPN = "h2"
"""What a client has to ask for inside TLS: RFC 9113, section 3.2."""

_PREFACE_SECONDS = 10.0
"""How long a client may take to begin to speak HTTP/2, and how long it may take for a TLS handshake."""

_LAST_SECONDS = 5.0
"""How long a client may take to read what was sent to it before its connection ended."""


class FastTransport:
    """Serves ext_proc and gRPC health on one listening socket."""

    def __init__(self, observer: Observer, tls: ssl.SSLContext | None = None) -> None:
        self._observer = observer
        self._tls = tls
        self._health = Health(SERVICE)
        self._methods: Methods = {f"/{SERVICE}/Process": self._process, **self._health.methods}
        self._connections: set[_Protocol] = set()
        self._room = Room()
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._open = 0
        self._stopping = False
        self._idle = asyncio.Event()

    async def start(self, address: str) -> str:
        """See `Transport`."""
        if address.startswith("unix:"):
            self._path = Path(address.removeprefix("unix:"))
            await self.serve(bound_unix(self._path))
            return address
        listener = bound(address)
        await self.serve(listener)
        return f"{address.rpartition(':')[0]}:{listener.getsockname()[1]}"

    async def serve(self, listener: socket.socket) -> None:
        """Serve whoever connects to a TCP or Unix socket that is bound."""
        loop = asyncio.get_running_loop()
        create: Callable[..., Awaitable[asyncio.Server]] = (
            loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
        )
        self._server = await create(
            lambda: _Protocol(self._methods, self._connections, self._room, self._changed),
            sock=listener,
            backlog=_BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=_PREFACE_SECONDS if self._tls else None,
        )

    async def stop(self, drain_seconds: float, hurry: asyncio.Event) -> None:
        """See `Transport`."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._health.stop()
        for connection in list(self._connections):
            connection.drain()
        self._changed()
        ends = [asyncio.create_task(end.wait()) for end in (self._idle, hurry)]
        await asyncio.wait(ends, timeout=drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
        closing = [connection.close() for connection in list(self._connections)]
        if closing:
            await asyncio.wait(closing, timeout=1)

    def _process(self, invocation: Invocation) -> _Process:
        self._open += 1
        return _Process(self._observer, invocation, self._done)

    def _done(self) -> None:
        self._open -= 1
        self._changed()

    def _changed(self) -> None:
        # A stream may be on its way until its connection knows that there are to be no more.
        if self._stopping and not self._open and all(connection.drained for connection in self._connections):
            self._idle.set()


class _Process(Stream):
    """A call of the one method of ext_proc."""

    __slots__ = ("_done",)

    def __init__(self, observer: Observer, invocation: Invocation, done: Callable[[], None]) -> None:
        super().__init__(observer, invocation.metadata)
        self._done = done

    def end(self) -> bool:
        """See rpc.Handler."""
        return True

    def close(self) -> None:
        """See rpc.Handler."""
        super().close()
        self._done()


_buffer = memoryview(bytearray(_READ))  # of whichever connection has its turn: what is read is taken at once


class _Protocol(asyncio.BufferedProtocol):
    """Moves bytes between a socket and its connection."""

    def __init__(self, methods: Methods, connections: set[_Protocol], room: Room, changed: Callable[[], None]) -> None:
        held = Held(room)
        self._connection = Connection(lambda request, stream: Call(methods, request, stream, held), monotonic(), room)
        self._connections = connections
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    @property
    def drained(self) -> bool:
        """Whether no more streams can come."""
        return self._connection.drained or self._connection.finished

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        encryption = transport.get_extra_info("ssl_object")
        if encryption is not None and encryption.selected_alpn_protocol() != _ALPN:
            transport.close()
            return
        if len(self._connections) >= MOST_CONNECTIONS:
            self._connection.refuse()
        self._connections.add(self)
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family != socket.AF_UNIX:
            # An Envoy whose host has died says nothing any more.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._timer = self._loop.call_later(_PREFACE_SECONDS, self._too_slow)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the base class's signature
        """See asyncio.BufferedProtocol."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        connection = self._connection
        established = connection.established
        connection.receive(bytes(_buffer[:nbytes]), monotonic())
        if connection.out:
            self._transport.write(connection.pending())
        if connection.finished:
            self._leave()
        if not established or connection.timed:
            self._set_timer()
        if connection.draining:
            self._changed()

    def pause_writing(self) -> None:
        """See asyncio.BufferedProtocol: whoever does not take answers is not asked for more."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """See asyncio.BufferedProtocol."""
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base class's signature
        """See asyncio.Protocol."""
        self._connections.discard(self)
        self._connection.close()
        if self._timer is not None:
            self._timer.cancel()
        self._changed()
        if not self._gone.done():
            self._gone.set_result(None)

    def drain(self) -> None:
        """Let the client open no more streams."""
        self._connection.drain()
        self._flush()

    def close(self) -> asyncio.Future[None]:
        """End all; return what comes when the socket is closed."""
        self._connection.close()
        self._flush()
        return self._gone

    def _flush(self) -> None:
        if out := self._connection.pending():
            self._transport.write(out)
        if self._connection.finished:
            self._leave()

    def _leave(self) -> None:
        """Close the socket when all is sent, or the peer does not take it."""
        if not self._transport.is_closing():
            self._transport.close()
            self._loop.call_later(_LAST_SECONDS, self._transport.abort)

    def _too_slow(self) -> None:
        if not self._connection.established:
            self.close()

    def _set_timer(self) -> None:
        """Wake when the next call is out of time."""
        if not self._connection.established:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._connection.deadline
        if deadline is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - monotonic()), self._expire)

    def _expire(self) -> None:
        self._connection.expire(monotonic())
        self._flush()
        self._set_timer()
