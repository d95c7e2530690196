"""The programs that make the load and answer it: wrk, and two of ours in C."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.loads import Load, Streams
from extproc.demo.processes import Address, started

_HERE = Path(__file__).parent
_PACKAGES = {"wrk": "wrk", "cc": "gcc libc6-dev"}


class MissingToolError(Exception):
    """A program is not installed; the message says how to get it."""


def check() -> None:
    """Raise MissingToolError unless all programs are there."""
    if missing := [name for name in _PACKAGES if shutil.which(name) is None]:
        packages = " ".join(_PACKAGES[name] for name in missing)
        raise MissingToolError(f"not found: {', '.join(missing)}; on Debian or Ubuntu: apt-get install {packages}")


def wrk_version() -> str:
    """Return the version of wrk."""
    said = subprocess.run(("wrk", "-v"), capture_output=True, text=True, check=False).stdout  # noqa: S607
    return said.split()[1]


Mark = Callable[[], Awaitable[None]]
"""Called when the time that is measured begins, and when it is over."""


@dataclass(frozen=True)
class Outcome:
    """What clients saw."""

    whole: int
    """Number of exchanges that have come to their end; or of events of streams."""
    seconds: float
    p50: float
    """Microseconds: of an exchange; of an event from when the upstream wrote it until the client had it."""
    p99: float
    failed: int
    """Exchanges without a good answer, or streams that ended."""
    bytes: int = 0
    """Of answers, also of those that have not come to their end."""


class Tools:
    """The programs, ready to be run; what they need is in a folder."""

    def __init__(self, folder: Path) -> None:
        check()
        self._folder = folder
        self._upstream, self._streams = self._compiled("upstream"), self._compiled("streams")

    @asynccontextmanager
    async def upstream(self) -> AsyncIterator[tuple[int, Address]]:
        """Run the provider; yield its process and its address."""
        async with started((self._upstream,)) as process:
            yield process.process.pid, ("127.0.0.1", int(await process.line(process.stdout, 0)))

    async def drive(self, load: Load | Streams, port: int, seconds: int, mark: Mark) -> Outcome:
        """Be the clients of a load for so many seconds."""
        command = self._wrk(load, port, seconds) if isinstance(load, Load) else self._slow(load, port, seconds)
        async with started(command) as process:
            if isinstance(load, Streams):
                await process.line(process.stdout, 0)  # measuring
            await mark()
            line = 1 if isinstance(load, Streams) else 0
            while not (said := await process.line(process.stdout, line)).startswith("{"):
                line += 1
            await mark()
        return Outcome(**json.loads(said))

    def _wrk(self, load: Load, port: int, seconds: int) -> list[str]:
        options = ["-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(_HERE / "wrk.lua")]
        files = [self._file(request) for request in load.requests]
        return ["wrk", *options, f"http://127.0.0.1:{port}", *files]

    def _slow(self, load: Streams, port: int, seconds: int) -> list[str]:
        return [self._streams, str(port), str(load.number), str(seconds), self._file(load.request)]

    def _file(self, request: bytes) -> str:
        """Return the file in which a request is."""
        file = self._folder / f"request-{hash(request)}"
        if not file.exists():
            file.write_bytes(request)
        return str(file)

    def _compiled(self, name: str) -> str:
        program = str(self._folder / name)
        command = ("cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", program, str(_HERE / f"{name}.c"))
        subprocess.run(command, check=True)  # noqa: S603
        return program
