"""A gRPC service with one method, for what Envoy calls beside us."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc

from extproc.demo.processes import Address

Method = Callable[[bytes], Awaitable[bytes]]


@asynccontextmanager
async def serving(service: str, name: str, method: Method) -> AsyncIterator[Address]:
    """Serve one unary method, from bytes to bytes, on a free port."""

    async def handle(request: bytes, _context: object) -> bytes:
        return await method(request)

    server = grpc.aio.server()
    handlers = {name: grpc.unary_unary_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield "127.0.0.1", port
    finally:
        await server.stop(None)
