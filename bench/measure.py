"""The measuring: under each load all contenders in turn, round by round, each with processes of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import nan

from bench import processes
from bench.contenders import Contender
from bench.loads import Load, Streams
from bench.probe import probe
from bench.stage import Reading, Stage, staged
from bench.tools import Outcome, Tools

_WARM_UP_SECONDS = 1
_QUIET_SECONDS = 10.0


@dataclass(frozen=True)
class Options:
    """How it is measured."""

    seconds: int
    rounds: int
    envoy_workers: int


@dataclass(frozen=True)
class Sample:
    """One round; times in microseconds, costs per exchange, or per event of slow streams."""

    rate: float
    """Exchanges a second, or events."""
    p50: float
    p99: float
    server_cpu: float
    envoy_cpu: float
    messages: float
    """To the server."""
    counted: float
    """The part of the calls whose tokens Envoy has counted."""
    passed_over: int
    """Exchanges that Envoy let go by without the server."""
    failed: int
    """Exchanges without a good answer, or streams that ended."""
    others: float
    """Cores that were busy with something else."""


@dataclass(frozen=True)
class Result:
    """All rounds of one contender under one load; memory in bytes."""

    load: Load | Streams
    contender: Contender
    samples: Sequence[Sample]
    server_rest: int
    """When it had answered once."""
    server_peak: int
    envoy_peak: int


Results = Mapping[str, Result]
"""Of one load, by contender."""


async def measure(load: Load | Streams, contenders: Sequence[Contender], options: Options, tools: Tools) -> Results:
    """Measure the contenders under a load."""
    async with AsyncExitStack() as stack:
        upstream, address = await stack.enter_async_context(tools.upstream())
        trials = []
        for contender in contenders:
            stage = await stack.enter_async_context(staged(contender, address, options.envoy_workers))
            trials.append(_Trial(load, stage, upstream, tools))
        for trial in trials:
            await trial.prepare(warm_up=options.rounds > 1)
        for _ in range(options.rounds):
            for trial in trials:
                trial.samples.append(await trial.sample(options.seconds))
        return {trial.stage.contender.name: trial.result() for trial in trials}


class _Trial:
    """A contender under a load."""

    def __init__(self, load: Load | Streams, stage: Stage, upstream: int, tools: Tools) -> None:
        self.stage = stage
        self.samples: list[Sample] = []
        self._load = load
        self._tools = tools
        self._processes = [pid for pid in (upstream, stage.envoy, stage.server) if pid]
        self._answer_size = 0
        self._rest = 0

    async def prepare(self, *, warm_up: bool) -> None:
        """See whether it works."""
        if isinstance(self._load, Load):
            sizes = {await probe(self.stage.port, request) for request in set(self._load.requests)}
            self._answer_size = sizes.pop() if len(sizes) == 1 else 0
        self._rest = processes.memory(self.stage.server) if self.stage.server else 0
        if warm_up and isinstance(self._load, Load):
            await self.sample(_WARM_UP_SECONDS)

    async def sample(self, seconds: int) -> Sample:
        """Measure once."""
        readings: list[Reading] = []

        async def mark() -> None:
            readings.append(await self.stage.read())

        start, foreign = time.monotonic(), processes.foreign_cpu(self._processes)
        outcome = await self._tools.drive(self._load, self.stage.port, seconds, mark)
        foreign, elapsed = processes.foreign_cpu(self._processes) - foreign, time.monotonic() - start
        for pid in self._processes:
            await processes.quiet(pid, _QUIET_SECONDS)
        return self._compared(outcome, *readings, others=max(0.0, foreign / elapsed))

    def result(self) -> Result:
        """Return what was measured."""
        stage = self.stage
        server_peak = processes.memory(stage.server, peak=True) if stage.server else 0
        envoy_peak = processes.memory(stage.envoy, peak=True)
        return Result(self._load, stage.contender, self.samples, self._rest, server_peak, envoy_peak)

    def _compared(self, outcome: Outcome, before: Reading, after: Reading, *, others: float) -> Sample:
        # Long exchanges that have not come to their end have cost something too.
        number = outcome.bytes / self._answer_size if self._answer_size else float(outcome.whole)
        calls = outcome.whole * self._load.calls if isinstance(self._load, Load) else 0
        return Sample(
            rate=number / outcome.seconds,
            p50=outcome.p50 if outcome.whole else nan,
            p99=outcome.p99 if outcome.whole else nan,
            server_cpu=_per(after.server_cpu - before.server_cpu, number) * 1e6,
            envoy_cpu=_per(after.envoy_cpu - before.envoy_cpu, number) * 1e6,
            messages=_per(after.messages - before.messages, number),
            counted=min(1.0, _per(after.calls - before.calls, calls)),
            passed_over=after.passed_over - before.passed_over,
            failed=outcome.failed,
            others=others,
        )


def _per(value: float, number: float) -> float:
    return value / number if number else nan
