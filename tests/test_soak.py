"""The soak test of bench/soak.py, for as short a time as it can be told."""

from __future__ import annotations

import sys
import time
from collections import Counter

import pytest

from bench.soak import Counts, Sample, Work, faults
from extproc.demo.processes import started
from tests.waiting import exit_status

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are read from /proc")

MIB = 1024 * 1024
MADE = {"complete": 3, "aborted": 2}


async def test_soak() -> None:
    """Thousands of exchanges of all kinds leave nothing behind, and each is counted once."""
    async with started([sys.executable, "-m", "bench.soak", "--exchanges", "3000", "--seconds", "600"]) as process:
        assert await exit_status(process) == 0, (process.stdout, process.stderr)
    heads, *rows = (line.split() for line in process.stdout[: process.stdout.index("")])
    assert heads == ["seconds", "exchanges", "MiB", "streams", "files"]
    assert int(rows[-1][1].replace(",", "")) >= 3000
    assert process.stdout[-1] == "all is as it should be"


@pytest.mark.parametrize(
    ("memory", "counts", "found"),
    [
        ([40] * 41, Counts(MADE, 1, 0), []),
        ([20] * 4 + [40] * 37, Counts(MADE, 1, 0), []),
        ([40] * 20 + [90] + [43] * 20, Counts(MADE, 1, 0), []),
        (list(range(40, 81)), Counts(MADE, 1, 0), ["memory has grown"]),
        ([40] * 41, Counts({"complete": 4, "aborted": 2}, 1, 0), ["not every exchange was counted once"]),
        ([40] * 41, Counts({"complete": 3, "aborted": 1}, 1, 0), ["not every exchange was counted once"]),
        ([40] * 41, Counts(MADE, 0, 0), ["1 messages were none, and 0 errors counted"]),
        ([40] * 41, Counts(MADE, 1, 7), ["7 streams are open"]),
    ],
)
def test_faults(memory: list[int], counts: Counts, found: list[str]) -> None:
    """Memory that grows when all has settled is told, as is what was not counted, and what is left open."""
    work = Work(5, time.monotonic() + 1, done=Counter(MADE), garbage=1)
    samples = [Sample(number, number, size * MIB, 0, 9) for number, size in enumerate(memory)]
    assert faults(samples, work, counts) == found
