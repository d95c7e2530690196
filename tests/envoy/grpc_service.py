"""gRPC services with one method: what Envoy calls beside us, and what it calls in our place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import grpc

from extproc.demo.processes import Address
from extproc.transport import SERVICE

Method = Callable[[bytes], Awaitable[bytes]]
Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Process = Callable[[object, Context], Awaitable[None]]


@asynccontextmanager
async def serving(service: str, name: str, method: Method) -> AsyncIterator[Address]:
    """Serve one unary method, from bytes to bytes, on a free port."""

    async def handle(request: bytes, _context: object) -> bytes:
        return await method(request)

    async with _running(service, {name: grpc.unary_unary_rpc_method_handler(handle)}) as address:
        yield address


@asynccontextmanager
async def processing(process: Process) -> AsyncIterator[Address]:
    """Serve ext_proc's method, a stream of bytes each way, on a free port."""
    async with _running(SERVICE, {"Process": grpc.stream_stream_rpc_method_handler(process)}) as address:
        yield address


@asynccontextmanager
async def _running(service: str, methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]]) -> AsyncIterator[Address]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield "127.0.0.1", port
    finally:
        await server.stop(0)
