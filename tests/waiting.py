"""Waits for what nothing announces, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from extproc.demo.processes import Process


async def exit_status(process: Process) -> int:
    """Wait until a process has ended; return its exit status."""
    async with asyncio.timeout(60):
        return await process.process.wait()


async def until(holds: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - another process, or another library's task, makes it true
            await asyncio.sleep(0.005)
