"""The bench, for as short a time as it can be told."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from bench import processes, tools
from bench.report import table
from extproc.demo.processes import Address, Process, started
from tests.waiting import exit_status, until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are read from /proc"),
    pytest.mark.timeout(300),
]

Table = dict[str, dict[str, str]]


@pytest.fixture(autouse=True)
def _installed() -> None:
    """Skip without the programs that the bench needs, but fail in CI."""
    try:
        tools.check()
    except tools.MissingToolError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@asynccontextmanager
async def bench(*options: str) -> AsyncIterator[Process]:
    """Run the bench."""
    async with started([sys.executable, "-m", "bench", *options]) as process:
        yield process


def runs(pid: int) -> bool:
    """Tell whether a process runs."""
    return Path(f"/proc/{pid}").exists()


def tables(text: str) -> dict[str, Table]:
    """Return the tables by their headings, their cells by row and column."""
    found: dict[str, Table] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line[:1] == "|"]
        found[re.split(r"[:\n]", section)[0]] = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    return found


def value(cell: str) -> float:
    """Return the number in a cell."""
    return float(cell.strip("()").replace(",", ""))


async def test_bench(tmp_path: Path) -> None:
    """Each load has a table with a row for each contender; what is printed is also in the file."""
    output = tmp_path / "bench.md"
    options = ("--only", "small,small-1,slow", "--contenders", "alone,fast", "--base", "fast", "--output", str(output))
    async with bench("--quick", *options) as process:
        assert await exit_status(process) == 0, process.stderr
    text = output.read_text(encoding="utf-8")
    assert text == "\n".join(process.stdout).rstrip() + "\n"
    found = tables(text)
    assert set(found) == {"small", "small-1", "slow", "Growth with connections"}
    for name in ("small", "small-1", "slow"):
        alone, fast = found[name]["alone"], found[name]["fast"]
        assert alone["rate/alone"] == fast["CPU/fast"] == "1"
        assert alone["CPU, us"] == alone["MiB"] == "-"
        assert 0 < value(fast["rate/alone"]) < 2
        for column in ("rate, 1/s", "p50, +ms", "Envoy, us", "Envoy, MiB"):
            assert value(alone[column]) > 0
        for column in ("rate, 1/s", "CPU, us", "Envoy, us", "MiB"):
            assert value(fast[column]) > 0
    for name in ("small", "small-1"):
        assert value(found[name]["fast"]["messages"]) > 3
        assert value(found[name]["fast"]["counted"].rstrip("%")) > 50


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted(number: int) -> None:
    """A signal ends everything that was started, in the middle of a load."""
    async with bench("--only", "small", "--contenders", "noop-fast", "--seconds", "60") as process:
        pid = process.process.pid
        await until(lambda: len(processes.family(pid)) == 5 or process.process.returncode is not None)
        started_processes = processes.family(pid)
        process.process.send_signal(number)
        assert await exit_status(process) != 0
    assert len(started_processes) == 5  # itself, the upstream, the server, Envoy, wrk
    assert not [each for each in started_processes if runs(each)]


async def test_missing_tools(tmp_path: Path) -> None:
    """Without the programs that it needs the bench says what to install."""
    async with started([sys.executable, "-m", "bench"], {"PATH": str(tmp_path)}) as process:
        assert await exit_status(process) == 1
    assert process.stderr == ["Error: not found: wrk, cc; on Debian or Ubuntu: apt-get install wrk gcc libc6-dev"]


@pytest.mark.parametrize("name", ["only", "contenders"])
async def test_unknown_names(name: str) -> None:
    """A name that is not known is refused, and those that are known are told."""
    async with bench(f"--{name}", "small,none") as process:
        assert await exit_status(process) == 2
    assert "Known: " in process.stderr[-1]


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Address]:
    """Run the provider of the bench."""
    async with tools.Tools(tmp_path).upstream() as (_, address):
        yield address


async def parts(*some: bytes) -> AsyncIterator[bytes]:
    """Send a body in chunks."""
    for each in some:
        yield each
        await asyncio.sleep(0)


async def test_upstream(upstream: Address) -> None:
    """The provider takes bodies of both framings on one connection, and answers what the query says."""
    url = "http://{}:{}/v1/chat/completions".format(*upstream)
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        for query, content in (("", 34), ("?size=1", 1), ("?size=3000000", 3_000_000)):
            for body in (b"", b"{}", b"x" * 1_000_000, parts(b"{", b"}" * 100_000), parts()):
                async with session.post(url + query, data=body) as response:
                    answer = json.loads(await response.read())
                assert len(answer["choices"][0]["message"]["content"]) == content
                assert answer["usage"]["prompt_tokens"] == 9
        for query in ("?events=3", "?events=3&every=1"):
            async with session.post(url + query, data=b"{}") as response:
                *events, done, _ = (await response.text()).split("\n\n")
            documents = [json.loads(event.removeprefix("data: ")) for event in events]
            assert [document["usage"] is None for document in documents] == [True, True, True, False]
            assert done == "data: [DONE]"
            times = [int(document["id"].removeprefix("chatcmpl-"), 16) for document in documents]
            assert times == sorted(times)


def test_table() -> None:
    """Columns are as wide as their widest cell."""
    assert table(["", "b"], [["long", "1"], ["c", "222"]]).splitlines() == [
        "|      |   b |",
        "|------|----:|",
        "| long |   1 |",
        "| c    | 222 |",
    ]
