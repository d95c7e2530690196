"""A server under all kinds of calls for long: its memory stays flat, and each call is counted once.

`python -m bench.soak` takes an hour; `--exchanges 1000000` ends sooner.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from statistics import median

import aiohttp
import click
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from bench import processes
from bench.client import Client
from bench.exchange_cost import call, events
from extproc.demo.processes import Address, Server, extproc_server

PROXIES = 8
"""Connections at a time."""
CALLS = 8
"""Calls at a time on each of them."""
RENEWED = 2_000
"""Calls of a connection, before another takes its place."""
MODELS = 3_000
"""Different names: more than are kept."""
SAMPLES = 200
"""As many as the whole time is cut into."""

_SLACK = 1024 * 1024
_GROWTH = 1.02

_ANSWER = json.dumps({"model": "m", "usage": {"prompt_tokens": 9, "completion_tokens": 12}}).encode()
_BIG = json.dumps({"choices": [{"text": "x" * 100_000}], "model": "m", "usage": {"prompt_tokens": 9}}).encode()
_FAILED = b'{"error": {"message": "no"}}'
_NO_CALL = [message for _, message in call([b"{}"], "application/json", forward_all=False, path="/v1/files")[:1]]

_JSON, _SSE = "application/json", "text/event-stream"
_MIX: Sequence[tuple[str, str, list[bytes]]] = (
    *[("complete", _JSON, [_ANSWER])] * 10,
    *[("complete", _SSE, events())] * 3,
    ("complete", _JSON, [_BIG]),
    *[("aborted", _SSE, events())] * 2,
    ("error", _JSON, [_FAILED]),
    *[("not_llm", "", [])] * 2,
    ("garbage", "", []),
)
"""Of so many calls each: what it is to be counted as, and the answer."""


@dataclass
class Tally:
    """What was done, by what the server is to make of it."""

    done: Counter[str] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    """Bytes that the server had in memory, over time."""
    files: list[int] = field(default_factory=list)
    """Descriptors that it had open."""

    def faults(self, counted: dict[str, float], files_at_rest: int) -> list[str]:
        """Return what is wrong at the end, by the server's own counters."""
        found = [
            f"{name}: {self.done[name]:,} were made, {counted.get(name, 0):,.0f} were counted"
            for name in ("complete", "aborted", "error", "not_llm", "garbage")
            if self.done[name] != counted.get(name, 0)
        ]
        if counted.get("open"):
            found.append(f"{counted['open']:.0f} streams are still open")
        if self.files and files_at_rest > self.files[0]:
            found.append(f"{files_at_rest} files are open, at first there were {self.files[0]}")
        early, late = self.early_and_late
        if late > early * _GROWTH + _SLACK:
            found.append(f"memory has grown from {early / 2**20:.1f} to {late / 2**20:.1f} MiB")
        return found

    @property
    def early_and_late(self) -> tuple[float, float]:
        """Bytes of memory in the second and in the last tenth of the time."""
        tenth = max(1, len(self.memory) // 10)
        return median(self.memory[tenth : 2 * tenth] or self.memory), median(self.memory[-tenth:])


class Soak:
    """Makes calls until there were enough."""

    def __init__(self, address: Address, seconds: float, exchanges: int | None) -> None:
        self.tally = Tally()
        self._address = address
        self._until = time.monotonic() + seconds
        self._most = exchanges
        self._numbers = count()

    @property
    def is_over(self) -> bool:
        """Whether there were enough."""
        enough = self._most is not None and self.tally.done.total() >= self._most
        return enough or time.monotonic() >= self._until

    async def run(self) -> None:
        """Do it."""
        async with asyncio.TaskGroup() as proxies:
            for _ in range(PROXIES):
                proxies.create_task(self._proxy())

    async def _proxy(self) -> None:
        while not self.is_over:
            client = await Client.connected(self._address)
            async with asyncio.TaskGroup() as calls:
                for _ in range(CALLS):
                    calls.create_task(self._calls(client))
            await client.close()

    async def _calls(self, client: Client) -> None:
        for _ in range(RENEWED // CALLS):
            if self.is_over:
                return
            kind, messages = self._next()
            stream = client.open()
            for message in messages:
                await client.ask(stream, message)
            if stream % 4 == 1:
                client.end(stream)
            else:
                client.reset(stream)
            self.tally.done[kind] += 1

    def _next(self) -> tuple[str, Sequence[bytes]]:
        """Return what the next call is to be counted as, and its messages."""
        number = next(self._numbers)
        kind, content_type, answer = _MIX[number % len(_MIX)]
        if kind == "garbage":
            return kind, [b"\xff no message"]
        if kind == "not_llm":
            return kind, _NO_CALL
        model = f"model-{number % MODELS}" if number % 5 == 0 else "gpt-4o"
        made = call(answer, content_type, forward_all=number % 3 == 0, model=model)
        # Who is aborted has begun to stream.
        return kind, [message for _, message in (made[: 4 + number % 7] if kind == "aborted" else made)]


async def counted(server: Server) -> dict[str, float]:
    """Return what the server says that it has counted, under the names of `Tally.done`, and `open` streams."""
    async with aiohttp.ClientSession() as session, session.get(server.metrics_url) as response:
        families = text_string_to_metric_families(await response.text())
        samples = [sample for family in families for sample in family.samples]
    found: dict[str, float] = defaultdict(float)
    for sample in samples:
        match sample.name.removesuffix("_total"):
            case "asm_llm_proxy_requests":
                found[sample.labels["outcome"]] += sample.value
            case "extproc_gaps" if sample.labels["gap"] == "not_llm":
                found["not_llm"] += sample.value
            case "extproc_errors":
                found["garbage"] += sample.value
            case "extproc_streams_open":
                found["open"] = sample.value
    return found


async def watch(soak: Soak, pid: int, seconds: float) -> None:
    """Note what the server takes, and say so now and then."""
    begin = time.monotonic()
    while True:
        tally = soak.tally
        tally.memory.append(processes.memory(pid))
        tally.files.append(processes.files(pid))
        if len(tally.memory) % 10 == 1:
            row = (time.monotonic() - begin, tally.done.total(), tally.memory[-1] / 2**20, tally.files[-1])
            print("{:8.0f} s {:12,} exchanges {:8.1f} MiB {:6} files".format(*row), flush=True)
        await asyncio.sleep(seconds)


async def soaked(seconds: float, exchanges: int | None, transport: str) -> list[str]:
    """Run a server and soak it; return what is wrong. Ended by SIGTERM as by Ctrl-C, it leaves nothing running."""
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with extproc_server("--transport", transport, "--drain-seconds", "1") as server:
        pid = server.process.process.pid
        soak = Soak(server.address, seconds, exchanges)
        at_rest = processes.files(pid)
        watching = asyncio.create_task(watch(soak, pid, min(5.0, seconds / SAMPLES)))
        begin = time.monotonic()
        await soak.run()
        taken = time.monotonic() - begin
        watching.cancel()
        await processes.quiet(pid, 5)
        soak.tally.files.insert(0, at_rest)
        faults = soak.tally.faults(await counted(server), processes.files(pid))
        early, late = soak.tally.early_and_late
        print(f"{soak.tally.done.total():,} exchanges in {taken:.0f} s: {dict(soak.tally.done)}")
        print(f"memory: {early / 2**20:.1f} MiB in the second tenth of the time, {late / 2**20:.1f} in the last")
        return faults


@click.command(help=__doc__)
@click.option("--seconds", type=click.FloatRange(1), default=3600, show_default=True)
@click.option("--exchanges", type=click.IntRange(1), help="End sooner, after so many.")
@click.option("--transport", type=click.Choice(("fast", "grpcio")), default="fast", show_default=True)
def main(seconds: float, exchanges: int | None, transport: str) -> None:
    """Soak a server; exit with 1 if something is wrong."""
    try:
        faults = uvloop.run(soaked(seconds, exchanges, transport))
    except asyncio.CancelledError:
        raise click.Abort from None
    for fault in faults:
        print(f"wrong: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print("flat, and each exchange is counted once")


if __name__ == "__main__":
    main()
