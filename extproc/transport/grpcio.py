"""The reference transport: gRPC by grpcio, on asyncio.

Messages are passed as bytes, so that only one codec is at work, that of extproc.wire.
"""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from extproc.stream import Observer, Stream

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

# Envoy sends bodies in chunks of up to its buffer limit, 1 MiB unless configured otherwise.
_LONGEST_MESSAGE = 64 * 1024 * 1024

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake, and must not go unnoticed
    ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
)


class GrpcioTransport:
    """Serves ext_proc and gRPC health on one address."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    SERVICE, {"Process": grpc.stream_stream_rpc_method_handler(self._process)}
                )
            ]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    async def start(self, address: str) -> str:
        """Listen on HOST:PORT or unix:PATH and serve; return the address with the port that was chosen for 0.

        Raises:
            OSError: nobody can listen there.
        """
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(str(error)) from None
        await self._server.start()
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def stop(self, drain_seconds: float) -> None:
        """Report as not serving, take no new streams, let open ones finish for so long, then end them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(drain_seconds)

    async def _process(self, _requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        stream = Stream(self._observer, metadata)
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                if (reply := stream.receive(message)) is not None:
                    await context.write(reply)
        finally:
            stream.close()
