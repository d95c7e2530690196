"""The metrics of several processes as those of one server.

What they count is in files that are mapped into memory, one for each worker, so that the counts of a dead one stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from mmap import mmap
from pathlib import Path
from threading import Lock

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from extproc.counts import Counts, Row
from extproc.family import Family
from extproc.metrics import Metrics, text_format
from extproc.rows_file import RowsFile

# How the processes' values make one: a limit is that of each process, so what comes nearest to it counts.
_TOGETHER: dict[str, Callable[[Iterable[float]], float]] = {
    "process_virtual_memory_bytes": sum,
    "process_resident_memory_bytes": sum,
    "process_cpu_seconds": sum,
    "process_start_time_seconds": min,
    "process_open_fds": max,
    "process_max_fds": min,
}

_RESTARTS = Family("extproc_worker_restarts", "counter", "Processes that ended unasked and were started again.")


class Board:
    """Where processes that are forked from this one leave what all have to know."""

    def __init__(self, folder: str, workers: int) -> None:
        # By number instead of by process: a worker that dies often leaves no heap of files.
        self._paths = [f"{folder}/{number}" for number in range(workers)]
        self._files = [RowsFile(path) for path in self._paths]  # as the process that answers sees them
        self._rows: defaultdict[str, defaultdict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        self._reading = Lock()  # every request has a thread of its own
        helpers = 2  # the supervisor, and the one that answers for all
        cells = memoryview(mmap(-1, 8 * (2 * workers + helpers + 2))).cast("d")
        self._streams_open, rest = cells[:workers], cells[workers:]
        self.pids, self._restarts, self._ended_seconds = rest[:-2], rest[-2:-1], rest[-1:]
        """`pids`: of the workers by number, then of the helpers; 0 where there is none."""

    @property
    def restarts(self) -> float:
        """How many processes were started again."""
        return self._restarts[0]

    @property
    def ended_seconds(self) -> float:
        """The processor time of processes that have ended."""
        return self._ended_seconds[0]

    def metrics(self, number: int) -> Metrics:
        """Return the metrics of worker `number`, which is this process; they go on where its predecessor's ended."""
        return Metrics(Counts(RowsFile(self._paths[number])), self._streams_open[number : number + 1])

    def ended(self, number: int, seconds: float) -> None:
        """Note that a process has ended, and the processor time of all that have."""
        self.pids[number] = 0
        self._ended_seconds[0] = seconds
        if number < len(self._streams_open):
            self._streams_open[number] = 0

    def restarted(self) -> None:
        """Note that a process was started again."""
        self._restarts[0] += 1

    def exposition(self) -> bytes:
        """Return the metrics of all processes in the classic text format."""
        with self._reading:
            for file in self._files:
                for name, labels, row in file.news():
                    self._rows[name][labels].append(row)
            restarts = b"".join(_RESTARTS.text([("", (self.restarts,))]))
            processes = generate_latest(_Processes(self))
            return text_format(self._added_up, sum(self._streams_open), processes + restarts)

    def _added_up(self, family: Family) -> Iterator[tuple[str, Iterable[float]]]:
        for labels, rows in self._rows[family.name].items():
            yield labels, map(sum, zip(*rows, strict=True))


class _Processes(Collector):
    """Shows what the processes take together, as the library does for one."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        """Yield a metric of each kind for all."""
        found: dict[str, list[Metric]] = {}
        for pid in map(int, self._board.pids):
            for metric in ProcessCollector(pid=lambda: pid, registry=None).collect():  # noqa: B023 - used at once
                if metric.name == "process_resident_memory_bytes" and (share := _share(pid)):
                    metric.samples = [metric.samples[0]._replace(value=share)]
                found.setdefault(metric.name, []).append(metric)
        for name, metrics in found.items():
            first, *_ = metrics
            sample = first.samples[0]
            value = _TOGETHER[name](metric.samples[0].value for metric in metrics)
            if name == "process_cpu_seconds":
                # Or it would go back when a process ends, and look like a start from 0.
                value += self._board.ended_seconds
            first.samples = [sample._replace(value=value)]
            yield first


def _share(pid: int) -> int | None:
    """Return the memory of a process, and its share of what it shares: memory is not to be counted for each of them."""
    # https://docs.kernel.org/filesystems/proc.html: Pss, the proportional set size
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), None)
