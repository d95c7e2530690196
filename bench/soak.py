"""Whether the server stays as it is for as long as it runs: `python -m bench.soak`.

Runs `extproc serve` and makes exchanges of all kinds, with connections that come and go, until so much time has passed
or so many have been made. Prints what the server holds meanwhile. Fails if its memory has grown, if an exchange was not
counted just once, or if anything is left open.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from statistics import median
from typing import NamedTuple

import aiohttp
import click
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from bench.caller import GREETING, Caller
from bench.processes import memory
from bench.server_cost import REQUEST, STREAMED, WHOLE, body
from extproc.demo.processes import Address, Server, extproc_server
from extproc.transport.http2 import frames
from extproc.wire.ext_proc_pb2 import ProcessingRequest

_CONNECTIONS = 4  # at once
_LANES = 8  # exchanges at once on each
_SAMPLES = 40
_SETTLED = 0.1  # the part of the run that fills the caches and is not looked at
_GROWTH = 1.05  # that counts as none, and so many bytes more
_SPARE = 2 * 1024 * 1024
_END_SECONDS = 30

Messages = Sequence[bytes]


def _bytes(messages: Sequence[ProcessingRequest]) -> Messages:
    return [message.SerializeToString() for message in messages]


_WHOLE = _bytes(WHOLE)
_STREAMED = _bytes([*STREAMED[:13], STREAMED[-1]])
_LONG = _bytes([REQUEST[0], ProcessingRequest(request_body=body(b'{"model":"m","x":"' + b"a" * 300_000, end=True))])
_BROKEN = [b"\xff" * 50, *_bytes([*WHOLE[:3], ProcessingRequest(response_body=body(b'{"usage": [[[', end=True))])]

_STRANGERS = (
    b"GET / HTTP/1.1\r\nHost: extproc\r\n\r\n",
    GREETING + frames.header(frames.DEFAULT_FRAME + 1, frames.DATA, 0, 1),
    GREETING + frames.window_update(0, 0),
    GREETING + frames.header(2, frames.HEADERS, frames.END_HEADERS, 1) + b"\xff\xff",
)
"""What ends a connection."""


@dataclass
class Work:
    """What is to be done, and what has been."""

    exchanges: int
    until: float
    """By time.monotonic."""
    began: float = field(default_factory=time.monotonic)
    done: Counter[str] = field(default_factory=Counter)
    """Exchanges, by the outcome that the server is to count."""
    garbage: int = 0
    """Messages that are none."""
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def part(self) -> float:
        """How much of it is done, up to 1."""
        now = time.monotonic()
        return min(1.0, max(self.done.total() / self.exchanges, (now - self.began) / (self.until - self.began)))

    async def exchange(self, caller: Caller) -> None:
        """Make the next exchange, of the kind that its number says."""
        number = next(self._numbers)
        match number % 20:
            case 0 | 1 | 2 | 3 | 4 | 5:
                await self._aborted(caller, _STREAMED[: 1 + number // 20 % (len(_STREAMED) - 1)])
            case 6 | 7 | 8 | 9 | 10 | 11:
                await self._complete(caller, _STREAMED)
            case 12:
                await self._complete(caller, _BROKEN)
                self.garbage += 1
            case 13 if number % 100 == 13:  # noqa: PLR2004 - one in a hundred
                await self._aborted(caller, _LONG)
            case _:
                await self._complete(caller, _WHOLE)

    async def _complete(self, caller: Caller, messages: Messages) -> None:
        stream = await _talk(caller, messages)
        self.done["complete"] += 1
        await caller.end(stream)

    async def _aborted(self, caller: Caller, messages: Messages) -> None:
        caller.reset(await _talk(caller, messages))
        self.done["aborted"] += 1

    async def lost(self, caller: Caller) -> None:
        """Make exchanges that end with their connection."""
        for _ in range(_LANES):
            await _talk(caller, _STREAMED[:3])
        caller.leave()
        self.done["aborted"] += _LANES


async def _talk(caller: Caller, messages: Messages) -> int:
    """Send messages, each when the one before is answered; return the stream, still open."""
    stream = caller.open()
    for message in messages:
        await caller.ask(stream, message)
    return stream


async def _come_and_go(address: Address, work: Work, first: int) -> None:
    """Connect again and again, for longer and shorter, beside strangers."""
    for number in count(first, _CONNECTIONS):
        if work.part >= 1:
            return
        caller = await Caller.connected(address)
        caller.say(GREETING)
        each = 1 + number * 7 % 50

        async def lane(caller: Caller = caller, each: int = each) -> None:
            for _ in range(each):
                await work.exchange(caller)

        await asyncio.gather(*(lane() for _ in range(_LANES)))
        if number % 2:
            await work.lost(caller)
        caller.leave()
        stranger = await Caller.connected(address)
        stranger.say(_STRANGERS[number % len(_STRANGERS)])
        await stranger.lost()


class Sample(NamedTuple):
    """The server at a time."""

    seconds: float
    exchanges: int
    memory: int
    """Bytes."""
    streams: float
    files: int


class Counts(NamedTuple):
    """What the server has counted."""

    outcomes: dict[str, int]
    errors: float
    streams: float


async def _counts(server: Server) -> Counts:
    async with aiohttp.ClientSession() as session, session.get(server.metrics_url) as response:
        families = {family.name: family.samples for family in text_string_to_metric_families(await response.text())}
    outcomes: Counter[str] = Counter()
    for sample in families.get("asm_llm_proxy_requests", ()):
        outcomes[sample.labels["outcome"]] += int(sample.value)
    errors = sum(sample.value for sample in families.get("extproc_errors", ()))
    return Counts(dict(outcomes), errors, sum(sample.value for sample in families["extproc_streams_open"]))


async def _sample(server: Server, work: Work) -> Sample:
    pid = server.process.process.pid
    streams = (await _counts(server)).streams
    files = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - the names are enough
    return Sample(time.monotonic() - work.began, work.done.total(), memory(pid), streams, files)


def _line(sample: Sample) -> str:
    return (
        f"{sample.seconds:9,.0f} {sample.exchanges:12,} {sample.memory / 2**20:8.1f} "
        f"{sample.streams:8.0f} {sample.files:6}"
    )


async def _watched(server: Server, work: Work) -> list[Sample]:
    """Look at the server as it goes on; print and return what is seen."""
    found: list[Sample] = []
    print(f"{'seconds':>9} {'exchanges':>12} {'MiB':>8} {'streams':>8} {'files':>6}")
    for number in range(_SAMPLES + 1):
        while work.part < number / _SAMPLES:  # noqa: ASYNC110 - nothing else is to know when samples are taken
            await asyncio.sleep(0.02)
        found.append(await _sample(server, work))
        print(_line(found[-1]), flush=True)
    return found


async def _settled(server: Server) -> Counts:
    """Wait until no stream is open; return what has been counted."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            while (await _counts(server)).streams:  # noqa: ASYNC110 - another process makes it true
                await asyncio.sleep(0.05)
    return await _counts(server)


def faults(samples: Sequence[Sample], work: Work, counts: Counts) -> list[str]:
    """Return what is not as it should be."""
    found = []
    settled = samples[int(len(samples) * _SETTLED) :]
    quarter = max(1, len(settled) // 4)
    early, late = (median(each.memory for each in part) for part in (settled[:quarter], settled[-quarter:]))
    print(f"\nmemory, early and late: {early / 2**20:.1f} and {late / 2**20:.1f} MiB")
    if late > early * _GROWTH + _SPARE:
        found.append("memory has grown")
    print(f"exchanges made: {dict(work.done)}; counted: {counts.outcomes}")
    if counts.outcomes != dict(work.done):
        found.append("not every exchange was counted once")
    if counts.errors != work.garbage:
        found.append(f"{work.garbage} messages were none, and {counts.errors:.0f} errors counted")
    if counts.streams:
        found.append(f"{counts.streams:.0f} streams are open")
    return found


async def soak(seconds: float, exchanges: int) -> list[str]:
    """Run it; return what is not as it should be."""
    async with extproc_server("--transport", "fast", "--log-level", "error") as server:
        work = Work(exchanges, time.monotonic() + seconds)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watched(server, work))
            for number in range(_CONNECTIONS):
                group.create_task(_come_and_go(server.address, work, number))
        found = faults(watching.result(), work, await _settled(server))
        files = (await _sample(server, work)).files
        if files > watching.result()[0].files:
            found.append(f"{files} files are open")
    return found


@click.command(help=__doc__)
@click.option("--seconds", type=click.FloatRange(1), default=3600, show_default=True, help="The longest it may take.")
@click.option("--exchanges", type=click.IntRange(1), default=1_000_000, show_default=True, help="The most to make.")
def main(seconds: float, exchanges: int) -> None:
    """Run it."""
    found = uvloop.run(soak(seconds, exchanges))
    print("\n".join(found) or "all is as it should be")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
