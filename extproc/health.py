"""Asks a server for its gRPC health, as a container's health check does."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.settings import host_and_port

# A server that listens on all addresses is asked on this host's own.
_OWN = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - nothing is bound here


class HealthError(Exception):
    """The server does not serve; the message says what it said instead."""


def check(listen: str, seconds: float) -> None:
    """Ask the server that listens on HOST:PORT or unix:PATH whether it serves.

    Raises:
        HealthError: it says that it does not, or says nothing in time.
    """
    options = (("grpc.enable_http_proxy", 0),)  # a proxy in the environment is not for calls to oneself
    with grpc.insecure_channel(_target(listen), options) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=seconds)
        except grpc.RpcError as error:
            raise HealthError(f"{listen}: {error.code().name}: {error.details()}") from None
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        raise HealthError(f"{listen}: {health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)}")


def _target(listen: str) -> str:
    if listen.startswith("unix:"):
        return listen
    host, port = host_and_port(listen)
    return f"{_OWN[host]}:{port}" if host in _OWN else listen
