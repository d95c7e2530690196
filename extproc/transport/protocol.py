"""Moves bytes between sockets and their HTTP/2 connections, on asyncio."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import Callable
from time import monotonic
from typing import cast

from extproc.transport.http2 import Accept, Connection, Room

MOST_CONNECTIONS = 8192
"""Connections that a process takes at once; fewer, where the system lets it open fewer files."""

BEGIN_SECONDS = 10.0
"""How long a client may take to begin to speak HTTP/2, and how long it may take for a TLS handshake."""

_LAST_SECONDS = 5.0
"""How long a client may take to read what was sent to it before its connection ended."""

_OTHER_FILES = 64  # that are open beside connections


class Connected(set["Protocol"]):
    """All connections of a process, and the memory that they share; `changed` is called when one may have ended."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self.changed = changed
        self.room = Room()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = files == resource.RLIM_INFINITY
        self.most = MOST_CONNECTIONS if unlimited else min(MOST_CONNECTIONS, max(1, files - _OTHER_FILES))


class Protocol(asyncio.Protocol):
    """Moves bytes between a socket and its connection, in turns: see `Connection.more`."""

    def __init__(self, accept: Accept, connected: Connected) -> None:
        self._connection = Connection(accept, monotonic(), connected.room)
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._next: asyncio.Handle | None = None  # turn
        self._unsent = 0  # bytes that the peer does not take; nothing more is taken from it meanwhile
        self._transport: asyncio.Transport

    @property
    def drained(self) -> bool:
        """Whether no more streams can come."""
        return self._connection.drained or self._connection.finished

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._connected.add(self)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            # RFC 9113, section 3.2. Whatever it speaks, it has not agreed to hear HTTP/2.
            self._connection.close()
            self._leave()
            return
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family != socket.AF_UNIX:
            # An Envoy whose host has died says nothing any more.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._timer = self._loop.call_later(BEGIN_SECONDS, self._too_slow)
        if len(self._connected) > self._connected.most:
            self._connection.refuse("too many connections")
        self._flush()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        connection = self._connection
        begun = connection.established
        connection.receive(data, monotonic())
        if connection.out:
            self._transport.write(connection.pending())
        if not begun or connection.timed or connection.more or connection.draining or connection.finished:
            self._attend()

    def pause_writing(self) -> None:
        """See asyncio.Protocol: whoever does not take answers is not asked for more."""
        self._transport.pause_reading()
        self._unsent = self._transport.get_write_buffer_size()
        if not self._connection.hold(self._unsent):
            self._transport.abort()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._connection.hold(-self._unsent)
        self._unsent = 0
        self._read_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base class's signature
        """See asyncio.Protocol."""
        self._connected.discard(self)
        self._connection.close()
        self._connection.hold(-self._unsent)
        for handle in (self._timer, self._next):
            if handle is not None:
                handle.cancel()
        self._connected.changed()
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

    def _attend(self) -> None:
        """Do what there is to do after a turn, beside what is usual."""
        connection = self._connection
        if connection.finished:
            self._leave()
        elif connection.more:
            self._transport.pause_reading()
            self._read_on()
        self._set_timer()
        if connection.draining:
            self._connected.changed()

    def _read_on(self) -> None:
        """Take what was left, turn by turn, then read again; while the peer takes no answers, neither."""
        if self._unsent or self._connection.finished:
            return
        if not self._connection.more:
            self._transport.resume_reading()
        elif self._next is None:
            self._next = self._loop.call_soon(self._proceed)

    def _proceed(self) -> None:
        self._next = None
        if not self._unsent:
            self.data_received(b"")
            self._read_on()

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
