"""`extproc health`, as a container's health check runs it, against a server that runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc.demo.processes import extproc_server

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def serving(status: int, address: str = "127.0.0.1:0") -> Iterator[int]:
    """Run a server with this health; yield its port."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        servicer = health.HealthServicer()
        servicer.set("", status)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port(address)
        server.start()
        try:
            yield port
        finally:
            server.stop(0).wait()


def asked(*options: str, **environment: str) -> tuple[int, str]:
    """Run the command; return its exit status and what it says."""
    command = [sys.executable, "-m", "extproc", "health", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    return done.returncode, done.stdout + done.stderr


async def test_our_server() -> None:
    """`extproc serve`, when it is ready, is healthy."""
    async with extproc_server() as server:
        host, port = server.address
        assert asked("--listen", f"{host}:{port}") == (0, "")


def test_over_a_unix_socket(tmp_path: Path) -> None:
    """A server on a unix socket is asked there."""
    address = f"unix:{tmp_path}/extproc.sock"
    with serving(SERVING, address):
        assert asked("--listen", address) == (0, "")


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "localhost"])
def test_where_the_server_was_told_to_listen(host: str) -> None:
    """Without --listen, EXTPROC_LISTEN says where, also when it means every address; a proxy is not asked."""
    with serving(SERVING) as port:
        assert asked(EXTPROC_LISTEN=f"{host}:{port}", http_proxy="http://127.0.0.1:1", no_proxy="") == (0, "")


def test_where_the_file_says(tmp_path: Path) -> None:
    """The settings' file is read as `extproc serve` reads it."""
    file = tmp_path / "extproc.yaml"
    with serving(SERVING) as port:
        file.write_text(f"listen: 127.0.0.1:{port}\n")
        assert asked(EXTPROC_CONFIG=str(file)) == (0, "")


def test_draining() -> None:
    """A server that says it does not serve is not healthy."""
    with serving(NOT_SERVING) as port:
        assert asked("--listen", f"127.0.0.1:{port}") == (1, f"Error: 127.0.0.1:{port}: NOT_SERVING\n")


def test_nobody_there() -> None:
    """Where nobody listens, nobody is healthy."""
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        status, said = asked("--listen", address)
    assert status == 1
    assert said.startswith(f"Error: {address}: UNAVAILABLE")


def test_no_answer() -> None:
    """A server that accepts and says nothing is not healthy, after the time it gets."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        status, said = asked("--listen", address, "--timeout", "0.5")
    assert status == 1
    assert said.startswith(f"Error: {address}: ")


def test_no_address() -> None:
    """What is no address is refused as by `extproc serve`."""
    status, said = asked("--listen", "nowhere")
    assert status == 2
    assert "'nowhere' is not an address; allowed is HOST:PORT or unix:PATH" in said
