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
from extproc.settings import TRANSPORTS
from tests.certificates import authority

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


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_our_server(transport: str) -> None:
    """`extproc serve`, when it is ready, is healthy."""
    async with extproc_server("--transport", transport) as server:
        host, port = server.address
        assert asked("--listen", f"{host}:{port}") == (0, "")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("mutual", [False, True])
async def test_tls(tmp_path: Path, transport: str, *, mutual: bool) -> None:
    """With TLS it is asked with what the settings say, and has to have the very certificate that they name."""
    ca = authority()
    for name in ("own", "other"):
        ca.issue().write(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
    (tmp_path / "ca.crt").write_bytes(ca.pem)

    def options(name: str) -> tuple[str, ...]:
        given = ("--tls-certificate", f"{tmp_path}/{name}.crt", "--tls-key", f"{tmp_path}/{name}.key")
        return (*given, "--tls-client-ca", f"{tmp_path}/ca.crt") if mutual else given

    async with extproc_server("--transport", transport, *options("own")) as server:
        address = "{}:{}".format(*server.address)
        assert asked("--listen", address, *options("own")) == (0, "")
        for tls, reason in ((options("other"), "its certificate cannot be trusted: "), ((), "")):
            status, said = asked("--listen", address, *tls)
            assert status == 1
            assert said.startswith(f"Error: {address}: {reason}")
            assert said.count("\n") == 1


def test_tls_where_there_is_none(tmp_path: Path) -> None:
    """A server that does not speak TLS, where the settings say so, is not healthy."""
    authority().issue().write(tmp_path / "tls.crt", tmp_path / "tls.key")
    with serving(SERVING) as port:
        tls = ("--tls-certificate", f"{tmp_path}/tls.crt", "--tls-key", f"{tmp_path}/tls.key")
        status, said = asked("--listen", f"127.0.0.1:{port}", *tls)
    assert status == 1
    assert said.startswith(f"Error: 127.0.0.1:{port}: ")
    assert said.count("\n") == 1


def test_certificate_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that cannot be read is an error with its setting."""
    with serving(SERVING) as port:
        tls = ("--tls-certificate", f"{tmp_path}/tls.crt", "--tls-key", f"{tmp_path}/tls.key")
        said = f"tls_certificate: cannot read {tmp_path}/tls.crt: No such file or directory"
        assert asked("--listen", f"127.0.0.1:{port}", *tls) == (1, f"Error: 127.0.0.1:{port}: {said}\n")


def test_no_health_service() -> None:
    """A gRPC server that says nothing of its health is not healthy."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        said = f"Error: 127.0.0.1:{port}: gRPC status 12: Method not found!\n"
        assert asked("--listen", f"127.0.0.1:{port}") == (1, said)
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers is no gRPC server"),
        (b"\0\0\1\1\4\0\0\0\1\xff", "what answers is no gRPC server"),  # no HPACK
        (b"", "it closed the connection"),
        (b"\0\0\4\7", "it closed the connection"),  # in the middle of a frame
        (b"\0\0\x08\7\0\0\0\0\0" + bytes(8), "it takes no calls"),  # GOAWAY
        (b"\0\0\4\3\0\0\0\0\1" + bytes(4), "it takes no calls"),  # RST_STREAM
    ],
)
def test_other_servers(answer: bytes, said: str) -> None:
    """What is no gRPC server, or takes no calls, is not healthy."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        served = pool.submit(serve)
        assert asked("--listen", address) == (1, f"Error: {address}: {said}\n")
        served.result()


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
    assert said == f"Error: {address}: Connection refused\n"


def test_no_answer() -> None:
    """A server that accepts and says nothing is not healthy, after the time it gets."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        status, said = asked("--listen", address, "--timeout", "0.5")
    assert (status, said) == (1, f"Error: {address}: no answer in 0.5 s\n")


def test_no_address() -> None:
    """What is no address is refused as by `extproc serve`."""
    status, said = asked("--listen", "nowhere")
    assert status == 2
    assert "'nowhere' is not an address; allowed is HOST:PORT or unix:PATH" in said
