"""What processes cost, as Linux counts it: CPU and memory of a process and its children."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_QUIET_SECONDS = 0.05


def family(pid: int) -> list[int]:
    """Return a process and its children, theirs included."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process and its children have taken, in user and system mode."""
    # The clock of another process: include/linux/posix-timers_types.h. /proc has it in hundredths of a second only.
    return sum(time.clock_gettime(~each << 3 | 2) for each in family(pid))


def memory(pid: int, *, peak: bool = False) -> int:
    """Return the bytes that a process and its children have in memory, or have had at most."""
    name = "VmHWM:" if peak else "VmRSS:"
    return sum(
        int(line.split()[1]) * 1024
        for each in family(pid)
        for line in Path(f"/proc/{each}/status").read_text().splitlines()
        if line.startswith(name)
    )


def files(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def foreign_cpu(ours: Iterable[int]) -> float:
    """Return the seconds of CPU that this machine has given to others than us, those processes, and who has ended."""
    _, user, nice, system, _, _, irq, softirq, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    all_of_it = sum(map(int, (user, nice, system, irq, softirq))) / _TICKS
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return all_of_it - time.process_time() - ended.ru_utime - ended.ru_stime - sum(map(cpu, ours))


async def quiet(pid: int, seconds: float) -> None:
    """Wait until a process has nothing left to do, but no longer than so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        before = cpu(pid)
        await asyncio.sleep(_QUIET_SECONDS)
        if cpu(pid) - before < _QUIET_SECONDS / 20:
            return
