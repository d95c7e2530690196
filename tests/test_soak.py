"""The soak: in short, and whether it would notice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench import processes
from bench.soak import Tally
from extproc.demo.processes import started

MIB = 2**20


@pytest.mark.parametrize("transport", ["fast", "grpcio"])
def test_a_short_one(transport: str) -> None:
    """Some thousand calls of all kinds, on connections that come and go: all are counted, once."""
    command = [sys.executable, "-m", "bench.soak", "--exchanges", "3000", "--seconds", "120", "--transport", transport]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    # So short a time is not enough to see where memory comes to rest.
    faults = [line for line in done.stderr.splitlines() if "memory has grown" not in line]
    assert faults == []
    assert "3,0" in done.stdout
    kinds = ("complete", "aborted", "error", "not_llm", "garbage")
    assert all(f"'{kind}': " in done.stdout for kind in kinds)


async def test_ended_early() -> None:
    """SIGTERM ends it, and its server with it."""
    async with started([sys.executable, "-m", "bench.soak"]) as process:
        await process.line(process.stdout, 0)
        _, server = processes.family(process.process.pid)
        process.process.terminate()
        assert await process.process.wait() == 1
        with pytest.raises(ProcessLookupError):
            os.kill(server, 0)


def soaked(**changes: object) -> Tally:
    """Return what a soak without a fault has noted, but for some changes."""
    noted = Tally(Counter(complete=5, aborted=2), [30 * MIB] + [40 * MIB] * 99, [20] * 100)
    for name, value in changes.items():
        setattr(noted, name, value)
    return noted


COUNTED = {"complete": 5.0, "aborted": 2.0, "open": 0.0}


@pytest.mark.parametrize(
    ("tally", "counted", "files", "said"),
    [
        (soaked(), COUNTED, 20, []),
        (soaked(), COUNTED | {"complete": 6.0}, 20, ["complete: 5 were made, 6 were counted"]),
        (soaked(), {"complete": 5.0}, 20, ["aborted: 2 were made, 0 were counted"]),
        (soaked(), COUNTED | {"error": 1.0}, 20, ["error: 0 were made, 1 were counted"]),
        (soaked(), COUNTED | {"open": 3.0}, 20, ["3 streams are still open"]),
        (soaked(), COUNTED, 21, ["21 files are open, at first there were 20"]),
        (
            soaked(memory=[(30 + number) * MIB for number in range(100)]),
            COUNTED,
            20,
            ["memory has grown from 44.5 to 124.5 MiB"],
        ),
    ],
)
def test_what_is_noticed(tally: Tally, counted: dict[str, float], files: int, said: list[str]) -> None:
    """A call that is counted twice or not at all, what is left open, and memory that grows."""
    assert tally.faults(counted, files) == said
