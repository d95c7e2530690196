"""The reference transport: gRPC by grpcio, on asyncio.

Messages are passed as bytes, so that only one codec is at work, that of extproc.wire.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from extproc.listening import bound, clear
from extproc.stream import Observer, Stream
from extproc.tls import Certificates
from extproc.transport import SERVICE

# Envoy sends bodies in chunks of up to its buffer limit, 1 MiB unless configured otherwise.
_LONGEST_MESSAGE = 64 * 1024 * 1024

_FOREVER = 1e6

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake, and must not go unnoticed
    ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
)


class GrpcioTransport:
    """Serves ext_proc and gRPC health on one address."""

    def __init__(self, observer: Observer, certificates: Certificates | None = None) -> None:
        self._observer = observer
        self._certificates = certificates
        self._health = health.HealthServicer()
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
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
        # gRPC writes the reason to stderr and tells us only that there is one. And it takes a unix socket from whoever
        # listens there.
        if address.startswith("unix:"):
            clear(Path(address.removeprefix("unix:")))
        else:
            bound(address).close()
        try:
            port = self._add_port(address)
        except RuntimeError as error:
            raise OSError(str(error)) from None
        await self._server.start()
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    def _add_port(self, address: str) -> int:
        port: int
        if self._certificates is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, _credentials(self._certificates))
        return port

    async def stop(self, drain_seconds: float, hurry: asyncio.Event) -> None:
        """Take no new streams, report as not serving, let open streams finish for so long, then end them.

        `hurry` cuts it short.
        """
        # gRPC crashes if it is stopped twice at once, and its own drain would also wait for those who watch the health.
        # So it is made to drain, and the draining ended from here, before gRPC would end it.
        draining = asyncio.create_task(self._server.stop(_FOREVER))
        await self._health.enter_graceful_shutdown()
        ends = [asyncio.create_task(end) for end in (self._idle.wait(), hurry.wait())]
        await asyncio.wait({draining, *ends}, timeout=drain_seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, *ends):
            task.cancel()
        await asyncio.wait({draining, *ends})
        await self._server.stop(0)

    async def _process(self, _requests: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self._open += 1
        self._idle.clear()
        context.add_done_callback(self._done)
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        stream = Stream(self._observer, metadata)
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                if (reply := stream.receive(message)) is not None:
                    await context.write(reply)
        finally:
            stream.close()

    def _done(self, _context: object) -> None:
        self._open -= 1
        if not self._open:
            self._idle.set()


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    files = certificates.files

    def read() -> grpc.ServerCertificateConfiguration:
        client_ca = files.client_ca.read_bytes() if files.client_ca else None
        return grpc.ssl_server_certificate_configuration(
            [(files.key.read_bytes(), files.certificate.read_bytes())], client_ca
        )

    # gRPC asks with every connection.
    return grpc.dynamic_ssl_server_credentials(
        read(), lambda: read() if certificates.renewed() else None, require_client_authentication=bool(files.client_ca)
    )
