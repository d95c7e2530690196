from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.demo.processes import Process, Server, extproc_server, started
from extproc.transport import SERVICE
from tests.samples import total
from tests.waiting import exit_status
from tests.wire.messages import CHAT, OK, body, headers, metadata_of, phase_of

# By a server that stops: it depends on how far the client has seen it stop.
REFUSED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

START = headers("request_headers", CHAT)
REST = (
    body("request_body", b'{"model": "m"}', end=True),
    headers("response_headers", OK),
    body("response_body", b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4}}', end=True),
)


@asynccontextmanager
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    """Connect to a server."""
    host, port = server.address
    async with grpc.aio.insecure_channel(f"{host}:{port}") as found:
        yield found


async def ask(stream: Any, message: bytes) -> bytes:  # noqa: ANN401 - grpcio ships no types
    """Send a message; return the reply."""
    await stream.write(message)
    reply = await stream.read()
    assert isinstance(reply, bytes)
    return reply


async def opened(channel: grpc.aio.Channel) -> Any:  # noqa: ANN401 - grpcio ships no types
    """Open a stream; return it when the server has answered its first message."""
    stream = channel.stream_stream(f"/{SERVICE}/Process")()
    assert phase_of(await ask(stream, START)) == "request_headers"
    return stream


async def draining(channel: grpc.aio.Channel, process: Process, number: int = signal.SIGTERM) -> None:
    """Send a signal; wait until the server drains."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    process.process.send_signal(number)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_ready_and_quiet() -> None:
    """The server says where it is ready, counts what it sees, and says no more until it ends."""
    async with extproc_server() as server:
        (line,) = server.process.stderr
        host, port = server.address
        assert line == f"extproc is ready: ext_proc on {host}:{port}, metrics on {server.metrics_url}"
        async with channel(server) as found:
            stream = await opened(found)
            replies = [await ask(stream, message) for message in REST]
            await stream.done_writing()
            assert await stream.code() is grpc.StatusCode.OK
        assert metadata_of(replies[-1])["request_prompt_tokens"] == 3
        async with aiohttp.ClientSession() as session, session.get(server.metrics_url) as response:
            assert total(await response.text(), "asm_llm_proxy_completion_tokens") == 4
        server.process.process.send_signal(signal.SIGTERM)
        assert await exit_status(server.process) == 0
    assert server.process.stderr == [line]
    assert server.process.stdout == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_open_streams_finish(number: int) -> None:
    """A signal ends the server when open streams have finished; meanwhile new ones are refused."""
    async with extproc_server("--drain-seconds", "3600") as server, channel(server) as found:
        stream = await opened(found)
        await draining(found, server.process, number)
        async with channel(server) as late:
            assert await late.stream_stream(f"/{SERVICE}/Process")().code() in REFUSED
        replies = [await ask(stream, message) for message in REST]
        assert metadata_of(replies[-1])["request_completion_tokens"] == 4
        await stream.done_writing()
        assert await stream.code() is grpc.StatusCode.OK
        assert await exit_status(server.process) == 0
    assert len(server.process.stderr) == 1


async def test_metrics_while_draining() -> None:
    """What is counted while draining can still be read."""
    async with extproc_server("--drain-seconds", "3600") as server, channel(server) as found:
        stream = await opened(found)
        await draining(found, server.process)
        async with aiohttp.ClientSession() as session, session.get(server.metrics_url) as response:
            assert total(await response.text(), "extproc_streams_open") == 1
        stream.cancel()
        assert await exit_status(server.process) == 0


async def test_drain_time() -> None:
    """A stream that does not end is ended after the drain time."""
    async with extproc_server("--drain-seconds", "0.2") as server, channel(server) as found:
        stream = await opened(found)
        server.process.process.send_signal(signal.SIGTERM)
        assert await stream.code() in REFUSED
        assert await exit_status(server.process) == 0
    assert len(server.process.stderr) == 1


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal(second: int) -> None:
    """A second signal ends a server that drains at once; a third does no harm."""
    async with extproc_server("--drain-seconds", "3600") as server, channel(server) as found:
        await opened(found)
        await draining(found, server.process)
        for number in (second, signal.SIGTERM):
            server.process.process.send_signal(number)
        assert await exit_status(server.process) == 0
    assert len(server.process.stderr) == 1


@pytest.mark.parametrize(
    ("option", "said"), [("--listen", "cannot listen on {}"), ("--metrics", "cannot serve metrics on {}")]
)
def test_address_in_use(option: str, said: str) -> None:
    """An address that somebody listens on is one line on stderr, and a status that is not 0."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = serve_in_vain(**{"--listen": "127.0.0.1:0", "--metrics": "127.0.0.1:0", option: address})
    assert done.returncode == 1
    assert done.stderr == f"Error: {said.format(address)}: Address already in use\n"


@pytest.mark.parametrize("listen", ["nobody.invalid:1", "unix:/nonexistent/extproc.sock", "192.0.2.1:1"])
def test_address_of_nobody(listen: str) -> None:
    """An address that cannot be listened on is one line on stderr, and a status that is not 0."""
    done = serve_in_vain(**{"--listen": listen, "--metrics": "127.0.0.1:0"})
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: cannot listen on {listen}: ")
    assert done.stderr.count("\n") == 1


def serve_in_vain(**options: str) -> subprocess.CompletedProcess[str]:
    """Run a server that cannot start."""
    arguments = [word for option in options.items() for word in option]
    return subprocess.run(
        [sys.executable, "-m", "extproc", "serve", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@asynccontextmanager
async def unix_server(path: Path) -> AsyncIterator[Process]:
    """Run a server on a unix socket; go on when it is ready."""
    command = [sys.executable, "-m", "extproc", "serve", "--listen", f"unix:{path}", "--metrics", "127.0.0.1:0"]
    async with started(command) as process:
        assert (await process.line(process.stderr, 0)).startswith(f"extproc is ready: ext_proc on unix:{path}, ")
        yield process


async def test_unix_socket(tmp_path: Path) -> None:
    """A unix socket is served, stays behind a crash, is in nobody's way then, and is removed at an orderly end."""
    path = tmp_path / "extproc.sock"
    async with unix_server(path) as process:
        process.process.kill()
        await process.process.wait()
        assert path.is_socket()
    async with unix_server(path) as process, grpc.aio.insecure_channel(f"unix:{path}") as found:
        stream = await opened(found)
        stream.cancel()
        process.process.send_signal(signal.SIGTERM)
        assert await exit_status(process) == 0
    assert not path.exists()


async def test_unix_socket_in_use(tmp_path: Path) -> None:
    """A second server does not take a unix socket from the first."""
    path = tmp_path / "extproc.sock"
    async with unix_server(path):
        done = await asyncio.to_thread(serve_in_vain, **{"--listen": f"unix:{path}", "--metrics": "127.0.0.1:0"})
        assert (done.returncode, done.stderr) == (1, f"Error: cannot listen on unix:{path}: Address already in use\n")
        async with grpc.aio.insecure_channel(f"unix:{path}") as found:
            (await opened(found)).cancel()


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
async def test_log(level: str) -> None:
    """Each line of the log is a JSON object, and says when, how severe and what; messages are not in it."""
    async with extproc_server("--log-level", level) as server:
        async with channel(server) as found:
            stream = await opened(found)
            await ask(stream, b"not a message")
            stream.cancel()
        server.process.process.send_signal(signal.SIGTERM)
        assert await exit_status(server.process) == 0
    lines = [json.loads(line) for line in server.process.stderr if not line.startswith("extproc is ready")]
    assert all({"asctime", "levelname", "name", "message"} <= line.keys() for line in lines)
    (line,) = (line for line in lines if line["levelname"] == "WARNING")
    assert (line["name"], line["message"]) == ("extproc.stream", "a message is no ProcessingRequest")
    assert line["bytes"] == len("not a message")
    assert "not a message" not in "".join(server.process.stderr)


async def test_log_level() -> None:
    """What is less severe than the level is not logged."""
    async with extproc_server("--log-level", "error") as server, channel(server) as found:
        stream = await opened(found)
        await ask(stream, b"not a message")
        stream.cancel()
    assert len(server.process.stderr) == 1


async def test_settings_from_the_environment() -> None:
    """The process takes its settings from the environment, too."""
    async with extproc_server(environment={"EXTPROC_NAMESPACE": "my.own"}) as server, channel(server) as found:
        stream = found.stream_stream(f"/{SERVICE}/Process")()
        assert b"my.own" in await ask(stream, START)
        stream.cancel()


@pytest.mark.parametrize(("transport", "grpc_needed"), [("fast", False), ("grpcio", True)])
def test_only_what_serving_needs_is_imported(transport: str, *, grpc_needed: bool) -> None:
    """The libraries of the tools, the demo, the tests and the other transport cost the server no time and memory."""
    program = (
        "import sys, extproc.cli, extproc.serve;"
        f"import extproc.transport.{transport};"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    imported = set(done.stdout.split())
    assert {"extproc", "msgspec", "prometheus_client", "uvloop"} <= imported
    assert ("grpc" in imported) is grpc_needed
    # Not grpc_tools: grpc imports it by itself wherever it is installed.
    tools = {"aiohttp", "betterproto2", "envoy", "envoy_data_plane", "hypothesis", "openai", "pydantic", "yaml"}
    assert not imported & tools


def test_help_needs_no_grpc() -> None:
    """`extproc --help` answers without loading what serves."""
    program = "import sys, extproc.cli; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
