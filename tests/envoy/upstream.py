"""The provider of the tests: it records what reaches it, and answers what the test says, when the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from extproc.demo.processes import Address
from tests.envoy.message import Connection, Incoming, Message


class Call(Connection):
    """One request at the upstream, and the way to answer it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: bytes) -> None:
        super().__init__(reader, writer)
        self.request = Incoming(reader, rest)


Script = Callable[[Call], Awaitable[None]]
"""What the upstream does with a request whose headers are there."""


def answer(*pieces: bytes) -> Script:
    """Wait for the whole request, then answer it with these bytes."""

    async def script(call: Call) -> None:
        if (await call.request.all()).end == "whole":
            await call.send(*pieces)

    return script


class Upstream:
    """Listens while it is in use."""

    def __init__(self) -> None:
        self.script: Script = answer()
        self.requests: list[Message] = []
        """Those since the last `begin`."""
        self.faults: list[Exception] = []
        """What scripts raised."""
        self.address: Address = ("", 0)
        self._connections: set[asyncio.Task[None]] = set()

    def begin(self, script: Script) -> None:
        """From now on do what `script` says, and record anew."""
        self.script = script
        self.requests = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Upstream]:
        """Take connections on a free port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=4 * 1024 * 1024)
        self.address = server.sockets[0].getsockname()
        try:
            yield self
        finally:
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rest = b""
        try:
            while not writer.is_closing():
                call = Call(reader, writer, rest)
                message = await _head(call)
                if not message.start:
                    break
                self.requests.append(message)
                await self.script(call)
                if (await call.request.all()).end != "whole":
                    break
                rest = call.request.rest
        except ConnectionError:
            pass  # the other side may go away at any time
        except Exception as fault:  # noqa: BLE001 - shown by the fixture
            self.faults.append(fault)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _head(call: Call) -> Message:
    """Wait for the next request on a connection, for as long as the connection is kept."""
    while True:
        with suppress(TimeoutError):
            return await call.request.head()
