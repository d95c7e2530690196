from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from extproc.demo.processes import Process, Server, extproc_server, started
from tests.certificates import NAME, authority
from tests.samples import total
from tests.test_serve import REFUSED, REST, ask, channel, draining, opened, serve_in_vain
from tests.waiting import exit_status, until
from tests.wire.messages import metadata_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs to know who listens on a socket")

WORKERS = 3


@dataclass
class Group:
    """A server with several workers, on Unix sockets, so that each of them can be asked."""

    server: Server
    path: Path
    folder: Path
    """Where it has its files."""

    @property
    def process(self) -> Process:
        """The supervisor."""
        return self.server.process

    def channel(self, number: int) -> Any:  # noqa: ANN401 - grpcio ships no types
        """Connect to a worker."""
        return grpc.aio.insecure_channel(f"unix:{self.path}.{number}")

    def worker(self, number: int) -> int:
        """Return the process that listens on a worker's socket."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{self.path}.{number}")
            pid, _, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        assert isinstance(pid, int)
        return pid

    async def replaced(self, number: int, pid: int) -> None:
        """Wait until another process listens on a worker's socket."""

        def another() -> bool:
            try:
                return self.worker(number) != pid
            except OSError:
                return False

        await until(another)

    async def metrics(self) -> str:
        """Return what is counted."""
        async with aiohttp.ClientSession() as session, session.get(self.server.metrics_url) as response:
            return await response.text()

    async def counted(self, name: str, value: float, **labels: str) -> None:
        """Wait until a counter has a value."""
        async with asyncio.timeout(30):
            while total(await self.metrics(), name, **labels) != value:  # noqa: ASYNC110 - another process makes it so
                await asyncio.sleep(0.01)

    @property
    def log(self) -> list[dict[str, Any]]:
        """What the processes have logged."""
        return [json.loads(line) for line in self.process.stderr if line.startswith("{")]

    @property
    def children(self) -> set[int]:
        """The processes that the supervisor has started."""
        return children(self.process)


def children(process: Process) -> set[int]:
    """Return the processes that a process has started."""
    pid = process.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def gone(pids: set[int]) -> bool:
    """Tell whether none of these processes runs."""
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@asynccontextmanager
async def group(tmp_path: Path, *options: str) -> AsyncIterator[Group]:
    """Run a server with workers on Unix sockets."""
    path, folder = tmp_path / "s", tmp_path / "tmp"
    folder.mkdir(exist_ok=True)
    given = ("--workers", str(WORKERS), "--listen", f"unix:{path}", *options)
    async with extproc_server(*given, environment={"TMPDIR": str(folder)}) as server:
        yield Group(server, path, folder)


async def exchange(channel: Any) -> None:  # noqa: ANN401 - grpcio ships no types
    """Make one exchange."""
    stream = await opened(channel)
    for message in REST:
        reply = await ask(stream, message)
    assert metadata_of(reply)["request_prompt_tokens"] == 3
    await stream.done_writing()
    assert await stream.code() is grpc.StatusCode.OK


async def test_metrics_are_added_up(tmp_path: Path) -> None:
    """Each worker serves on a socket of its own; what they count is shown as if there were but one."""
    async with group(tmp_path) as found:
        [line] = found.process.stderr
        path, url = found.path, found.server.metrics_url
        assert line == f"extproc is ready: ext_proc on unix:{path}.0 to .{WORKERS - 1}, metrics on {url}"
        assert len({found.worker(number) for number in range(WORKERS)}) == WORKERS
        for number in range(WORKERS):
            async with found.channel(number) as client:
                for _ in range(number + 1):
                    await exchange(client)
        text = await found.metrics()
        assert total(text, "asm_llm_proxy_requests") == 1 + 2 + 3
        assert total(text, "asm_llm_proxy_prompt_tokens") == 3 * (1 + 2 + 3)
        assert total(text, "gen_ai_server_request_duration_seconds_count") == 1 + 2 + 3
        assert total(text, "extproc_messages", phase="response_body") == 1 + 2 + 3
        assert total(text, "extproc_message_seconds_count", phase="response_body") == 1 + 2 + 3
        assert total(text, "extproc_build_info") == 1
        assert total(text, "extproc_worker_restarts") == 0
        await found.counted("extproc_streams_open", 0)
        found.process.process.send_signal(signal.SIGTERM)
        assert await exit_status(found.process) == 0
        assert list(found.folder.iterdir()) == []
        assert os.listdir(tmp_path) == ["tmp"]  # noqa: PTH208 - quick
    assert found.process.stderr == [line]


async def test_same_metrics() -> None:
    """The metrics have the same names, types, texts and labels as those of a server with one worker."""

    async def described(server: Server) -> dict[str, tuple[str, str, list[dict[str, str]]]]:
        async with channel(server) as client:
            await exchange(client)
        async with aiohttp.ClientSession() as session, session.get(server.metrics_url) as response:
            families = text_string_to_metric_families(await response.text())
        return {
            family.name: (
                family.type,
                family.documentation,
                sorted((sample.labels for sample in family.samples), key=str),
            )
            for family in families
            if family.samples
        }

    async with extproc_server() as one, extproc_server("--workers", "2") as several:
        alone, together = await described(one), await described(several)
    del together["extproc_worker_restarts"]
    assert together == alone


async def test_one_port() -> None:
    """At HOST:PORT, all workers serve on one port: connections come to one or the other."""
    async with extproc_server("--workers", str(WORKERS)) as server, AsyncExitStack() as stack:
        for _ in range(20):
            # Each with a connection of its own.
            options = (("grpc.use_local_subchannel_pool", 1),)
            client = grpc.aio.insecure_channel("{}:{}".format(*server.address), options)
            await exchange(await stack.enter_async_context(client))
        async with aiohttp.ClientSession() as session, session.get(server.metrics_url) as response:
            assert total(await response.text(), "asm_llm_proxy_requests") == 20


async def test_port_in_use() -> None:
    """A second server with workers does not share the port of the first."""
    async with extproc_server("--workers", "2") as server:
        address = "{}:{}".format(*server.address)
        options = {"--workers": "2", "--listen": address, "--metrics": "127.0.0.1:0"}
        done = await asyncio.to_thread(serve_in_vain, **options)
        assert (done.returncode, done.stderr) == (1, f"Error: cannot listen on {address}: Address already in use\n")


async def test_socket_in_use(tmp_path: Path) -> None:
    """Nor does it take any of the numbered sockets."""
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(f"{tmp_path}/s.1")
        taken.listen()
        options = {"--workers": "2", "--listen": f"unix:{tmp_path}/s", "--metrics": "127.0.0.1:0"}
        done = await asyncio.to_thread(serve_in_vain, **options)
    said = f"Error: cannot listen on unix:{tmp_path}/s: Address already in use\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_no_folder() -> None:
    """Where no file can be made, it is said what is needed."""
    program = "import tempfile; tempfile.tempdir = '/nonexistent'; from extproc.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        program,
        "serve",
        "--workers",
        "2",
        "--listen=127.0.0.1:0",
        "--metrics=127.0.0.1:0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: no folder for the metrics of workers (TMPDIR says where): ")


async def test_worker_that_dies(tmp_path: Path) -> None:
    """A worker that dies is replaced, which is said and counted; its counts stay, and its streams are open no more."""
    async with group(tmp_path) as found:
        async with found.channel(1) as client, found.channel(0) as other:
            await exchange(client)
            held, lost = await opened(other), await opened(client)
            await found.counted("extproc_streams_open", 2)
            pid = found.worker(1)
            os.kill(pid, signal.SIGKILL)
            assert await lost.code() in REFUSED
            await found.replaced(1, pid)
            await found.counted("extproc_streams_open", 1)
            for message in REST:
                await ask(held, message)
            held.cancel()
        async with found.channel(1) as client:
            await exchange(client)
        text = await found.metrics()
        assert total(text, "asm_llm_proxy_requests") == 1 + 1 + 1
        assert total(text, "extproc_messages", phase="request_body") == 1 + 1 + 1
        assert total(text, "extproc_worker_restarts") == 1
        [line] = found.log
        assert (line["levelname"], line["message"]) == ("ERROR", "worker 1 ended and is started again")
        assert (line["reason"], line["pid"]) == ("killed by SIGKILL", pid)


async def test_processor_time_goes_up(tmp_path: Path) -> None:
    """The processor time does not go back when a process ends, which would look like a start from 0."""
    async with group(tmp_path) as found:
        async with found.channel(0) as client:
            for _ in range(50):
                await exchange(client)
        before = total(await found.metrics(), "process_cpu_seconds") or 0
        pid = found.worker(0)
        os.kill(pid, signal.SIGKILL)
        await found.replaced(0, pid)
        assert (total(await found.metrics(), "process_cpu_seconds") or 0) >= before > 0


async def test_worker_that_dies_again_and_again(tmp_path: Path) -> None:
    """A worker that cannot start again is tried again, after a longer pause each time; meanwhile the others serve."""
    async with group(tmp_path) as found:
        path, pid = f"{found.path}.1", found.worker(1)
        os.unlink(path)  # noqa: PTH108 - at once
        os.mkdir(path)  # noqa: PTH102 - where it cannot listen
        os.kill(pid, signal.SIGKILL)
        said = "worker 1 ended and is started again"
        await until(lambda: sum(line["message"] == said for line in found.log) == 3)
        ended = [line for line in found.log if line["message"] == said]
        assert [line["pause"] for line in ended] == [0.5, 1.0, 2.0]
        assert [line["reason"] for line in ended] == ["killed by SIGKILL", "exit status 1", "exit status 1"]
        assert any("exc_info" in line and "Address already in use" in line["exc_info"] for line in found.log)
        async with found.channel(0) as client:
            await exchange(client)
        os.rmdir(path)  # noqa: PTH106
        await found.replaced(1, pid)


async def test_process_that_answers_for_metrics_dies(tmp_path: Path) -> None:
    """The process that answers for metrics is replaced, too; nothing is lost, and who asks meanwhile waits."""
    async with group(tmp_path) as found:
        async with found.channel(0) as client:
            await exchange(client)
        workers = {found.worker(number) for number in range(WORKERS)}
        [answering] = found.children - workers
        os.kill(answering, signal.SIGKILL)
        await until(lambda: gone({answering}))
        assert total(await found.metrics(), "asm_llm_proxy_requests") == 1
        [line] = found.log
        assert line["message"] == "metrics ended and is started again"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_open_streams_finish(tmp_path: Path, number: int) -> None:
    """A signal ends the server when the open streams of all workers have finished; meanwhile metrics are served."""
    async with group(tmp_path, "--drain-seconds", "3600") as found, AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(found.channel(number)) for number in range(2)]
        streams = [await opened(client) for client in (first, second)]
        await draining(first, found.process, number)
        assert total(await found.metrics(), "extproc_streams_open") == 2
        for stream in streams:
            for message in REST:
                await ask(stream, message)
            await stream.done_writing()
            assert await stream.code() is grpc.StatusCode.OK
        assert await exit_status(found.process) == 0
    assert len(found.process.stderr) == 1


async def test_signal_to_all(tmp_path: Path) -> None:
    """A signal that all processes get, as from a terminal or systemd, is one signal: open streams finish."""
    async with group(tmp_path, "--drain-seconds", "3600") as found, found.channel(0) as client:
        stream = await opened(client)
        os.killpg(found.process.process.pid, signal.SIGINT)
        await until(lambda: not Path(f"{found.path}.0").exists())
        for message in REST:
            await ask(stream, message)
        await stream.done_writing()
        assert await stream.code() is grpc.StatusCode.OK
        assert await exit_status(found.process) == 0
    assert len(found.process.stderr) == 1


async def test_second_signal(tmp_path: Path) -> None:
    """A second signal ends all workers at once."""
    async with group(tmp_path, "--drain-seconds", "3600") as found:
        async with found.channel(0) as first, found.channel(1) as second:
            await opened(second)
            await opened(first)
            await draining(first, found.process)
            found.process.process.send_signal(signal.SIGTERM)
            assert await exit_status(found.process) == 0
        assert list(found.folder.iterdir()) == []


async def test_supervisor_that_is_killed(tmp_path: Path) -> None:
    """When the supervisor is killed, all its processes end, and leave no files behind."""
    async with group(tmp_path, "--drain-seconds", "3600") as found, found.channel(0) as client:
        await opened(client)
        left = found.children
        assert len(left) == WORKERS + 1
        found.process.process.kill()
        await until(lambda: gone(left))
        assert list(found.folder.iterdir()) == []


FAILING = """
import sys
from extproc import workers
workers._Worker.__call__ = lambda self, orders, ready: {does}
from extproc.cli import main
main()
"""


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("sys.exit(3)", "exit status 3"),
        ("__import__('os').abort()", "killed by SIGABRT"),
        ("1 / 0", "exit status 1"),
        ("None", "exit status 0"),
    ],
)
def test_workers_that_do_not_start(tmp_path: Path, does: str, reason: str) -> None:
    """If workers end at the start, the command fails and says why."""
    command = [sys.executable, "-c", FAILING.format(does=does), "serve", "--workers", "2", "--metrics=127.0.0.1:0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "--listen=127.0.0.1:0"], capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    assert done.returncode == 1
    assert re.fullmatch(rf"Error: worker [01] did not start: {reason}", done.stderr.splitlines()[-1])
    assert "is ready" not in done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_tls_and_health(tmp_path: Path) -> None:
    """Workers serve with TLS; `extproc health` asks every one that has a socket of its own."""
    ca = authority()
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    ca.issue().write(certificate, key)
    tls = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    async with group(tmp_path, *tls) as found:
        credentials = grpc.ssl_channel_credentials(ca.pem)
        options = (("grpc.ssl_target_name_override", NAME),)
        async with grpc.aio.secure_channel(f"unix:{found.path}.2", credentials, options) as client:
            await exchange(client)

        async def healthy(*options: str) -> tuple[int | None, Sequence[str]]:
            command = [sys.executable, "-m", "extproc", "health", "--listen", f"unix:{found.path}", *options, *tls]
            async with started(command) as process:
                return await exit_status(process), process.stderr

        assert await healthy("--workers", str(WORKERS)) == (0, [])
        status, said = await healthy("--workers", str(WORKERS + 1))
        assert (status, said) == (1, [f"Error: unix:{found.path}.{WORKERS}: No such file or directory"])


def test_serving_with_workers_needs_no_grpc() -> None:
    """What the workers share has no gRPC in it, and no threads, with which it could not be forked."""
    program = "import sys, threading, extproc.workers; print('grpc' in sys.modules, threading.active_count())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False 1\n"
