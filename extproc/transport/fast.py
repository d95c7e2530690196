"""The fast transport: gRPC on our own HTTP/2, on asyncio.

A connection answers all that one read brings and writes once; no message takes a task, a queue or a second turn of the
event loop. docs/decisions/0005-transport.md says why.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from extproc.listening import bound, bound_unix
from extproc.stream import Observer, Stream
from extproc.transport import SERVICE
from extproc.transport.health import Health
from extproc.transport.protocol import BEGIN_SECONDS, Connected, Protocol
from extproc.transport.rpc import Call, Invocation, Methods

_BACKLOG = 1024

_KEPT_MEMORY = 16 * 1024 * 1024


class FastTransport:
    """Serves ext_proc and gRPC health on one listening socket."""

    def __init__(self, observer: Observer, tls: ssl.SSLContext | None = None) -> None:
        self._observer = observer
        self._tls = tls
        self._health = Health(SERVICE)
        self._methods: Methods = {f"/{SERVICE}/Process": self._process, **self._health.methods}
        self._connected = Connected(self._changed)
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
        # glibc gives memory back to the system, and takes it anew page by page, beyond twice the largest block that was
        # ever freed: without this one, which is never touched, with every body of 1 MiB.
        bytes(_KEPT_MEMORY)
        self._server = await create(
            partial(Protocol, partial(Call, self._methods), self._connected),
            sock=listener,
            backlog=_BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=BEGIN_SECONDS if self._tls else None,
        )

    async def stop(self, drain_seconds: float, hurry: asyncio.Event) -> None:
        """See `Transport`."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._health.stop()
        for connection in list(self._connected):
            connection.drain()
        self._changed()
        ends = [asyncio.create_task(end.wait()) for end in (self._idle, hurry)]
        await asyncio.wait(ends, timeout=drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
        closing = [connection.close() for connection in list(self._connected)]
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
        if self._stopping and not self._open and all(connection.drained for connection in self._connected):
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
