"""How many messages came and how long their answers took, by phase.

Counted with every message, so it has to cost next to nothing: plain cells, of which each process has its own and which
processes can share. The library's histogram takes two locks and tries its buckets in turn, ten times the cost
(docs/decisions/0006-workers.md). What is shown is the library's all the same, by its interface for custom collectors:
https://prometheus.github.io/client_python/collector/custom/
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from extproc.labels import UNKNOWN
from extproc.wire.replies import PHASES

_PHASES = (*PHASES, UNKNOWN)
_BOUNDS = [0.00001 * 4**n for n in range(9)]
_NAMES = [*map(repr, _BOUNDS), "+Inf"]
_SUM = len(_NAMES)
_ROW = _SUM + 1  # of a phase: its buckets and the sum
_START = {phase: number * _ROW for number, phase in enumerate(_PHASES)}

CELLS = len(_PHASES) * _ROW
"""How many a process needs."""


class MessageTimes:
    """Counts the messages of one process."""

    def __init__(self, cells: memoryview[float] | None = None) -> None:
        self.cells = memoryview(bytearray(8 * CELLS)).cast("d") if cells is None else cells

    def add(self, phase: str, seconds: float) -> None:
        """Count a message that was answered in so many seconds."""
        start = _START[phase]
        cells = self.cells
        cells[start + bisect_left(_BOUNDS, seconds)] += 1.0
        cells[start + _SUM] += seconds


class MessageTimesCollector(Collector):
    """Shows what one or more processes have counted."""

    def __init__(self, processes: Sequence[memoryview[float]]) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        """Yield the count and the distribution, without phases that there were none of."""
        count = CounterMetricFamily("extproc_messages", "Messages from Envoy.", labels=("phase",))
        times = HistogramMetricFamily(
            "extproc_message_seconds", "Time to answer a message from Envoy.", labels=("phase",)
        )
        for phase, start in _START.items():
            row = [sum(cells) for cells in zip(*(each[start : start + _ROW] for each in self._processes), strict=True)]
            *_, total = buckets = list(accumulate(row[:_SUM]))
            if total:
                count.add_metric((phase,), total)
                times.add_metric((phase,), list(zip(_NAMES, buckets, strict=True)), row[_SUM])
        yield count
        yield times
