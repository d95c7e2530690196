"""What runs around a test: Envoy on envoy/envoy.yaml, with us or without, and what all of them tell."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from extproc.demo.processes import Address, Envoy, Server, envoy, load
from tests.envoy.message import SECONDS
from tests.samples import total

FOLDER = Path(__file__).parents[2] / "envoy"
FILTER = "asm-llm-proxy"
FACTS = ("request_model", "request_prompt_tokens", "request_completion_tokens", "usage")

Configuration = dict[str, Any]


@asynccontextmanager
async def proxy(
    upstream: Address, server: Address, change: Callable[[Configuration], None] | None = None
) -> AsyncIterator[Envoy]:
    """Run Envoy on envoy.yaml, with changes if there are any."""
    configuration = load(FOLDER / "envoy.yaml", {"dashscope": upstream, "other": upstream, "extproc": server})
    if change:
        # YAML's aliases are one object in several places.
        configuration = copy.deepcopy(configuration)
        change(configuration)
    async with envoy(configuration) as running:
        yield running


def connection_manager(configuration: Configuration) -> dict[str, Any]:
    """Return the part of the configuration that has the filters and the routes."""
    listener = configuration["static_resources"]["listeners"][0]
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def routes(configuration: Configuration) -> list[dict[str, Any]]:
    """Return the routes of the provider's virtual host."""
    found: list[dict[str, Any]] = connection_manager(configuration)["route_config"]["virtual_hosts"][0]["routes"]
    return found


def without_us(configuration: Configuration) -> None:
    """Take our filter out."""
    manager = connection_manager(configuration)
    manager["http_filters"] = [item for item in manager["http_filters"] if item["name"] != FILTER]
    for host in manager["route_config"]["virtual_hosts"]:
        for holder in (host, *host["routes"]):
            holder.pop("typed_per_filter_config", None)


def impatient(configuration: Configuration) -> None:
    """Let Envoy give up on us soon."""
    filters = connection_manager(configuration)["http_filters"]
    next(item for item in filters if item["name"] == FILTER)["typed_config"]["message_timeout"] = "0.2s"


async def logged(running: Envoy, path: str) -> dict[str, Any]:
    """Return the access-log line of the call to a path, as soon as it is written; tests use each path once."""
    number = 0
    while (line := await running.log_line(number))["path"] != path:
        number += 1
    return line


def facts(line: dict[str, Any]) -> list[object]:
    """Return the four fields of ours of a log line."""
    return [line[name] for name in FACTS]


async def ours(server: Server) -> str:
    """Return our metrics as soon as no stream is open, that is, when every exchange has been counted."""
    async with asyncio.timeout(SECONDS), aiohttp.ClientSession() as session:
        while True:
            async with session.get(server.metrics_url) as response:
                text = await response.text()
            if total(text, "extproc_streams_open") == 0:
                return text
            await asyncio.sleep(0.01)
