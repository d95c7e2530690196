"""What the server counts, of calls (calls.py) and of itself, and how it is shown: Prometheus's classic text format."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cache, partial
from io import BytesIO

from prometheus_client import ProcessCollector, generate_latest

from extproc import __version__
from extproc.calls import FAMILIES, Calls, Labels
from extproc.core.facts import Gap, Record
from extproc.counts import Counts, Row
from extproc.family import Family
from extproc.labels import UNKNOWN
from extproc.wire.replies import PHASES

__all__ = ["BOUNDED", "CONTENT_TYPE", "Labels", "Metrics", "text_format"]

BOUNDED = ("source_workload", "source_workload_namespace", "destination_service", "model", "response_model")
"""The labels whose values others choose."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_MESSAGE = [0.00001 * 4**n for n in range(9)]

_OPEN = Family("extproc_streams_open", "gauge", "Streams from Envoy that are open.")
_MESSAGES = Family("extproc_messages", "counter", "Messages from Envoy.", ("phase",))
_MESSAGE_SECONDS = Family(
    "extproc_message_seconds", "histogram", "Time to answer a message from Envoy.", ("phase",), _MESSAGE
)
_ERRORS = Family("extproc_errors", "counter", "Messages answered in spite of a fault of this server.", ("phase",))
_GAPS = Family("extproc_gaps", "counter", "Exchanges of which something is not known, by the reason.", ("gap",))
_OVERFLOWS = Family("extproc_label_overflows", "counter", "Label values that were called `other`.", ("label",))
_BUILD = Family("extproc_build_info", "gauge", "The version of this server.", ("version",))

_HEALTH = (_MESSAGE_SECONDS, _ERRORS, _GAPS, _OVERFLOWS)


class Gauge:
    """A number of things, in a row of its own."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def inc(self) -> None:
        """Count one more."""
        self.row[0] += 1.0

    def dec(self) -> None:
        """Count one less."""
        self.row[0] -= 1.0


class Metrics:
    """What one process counts: one thread counts, others may read."""

    def __init__(self, counts: Counts | None = None, streams_open: Row | None = None) -> None:
        self._counts = counts = counts or Counts()
        self.streams_open = Gauge([0.0] if streams_open is None else streams_open)
        self._calls = Calls(counts)
        self._times, self._errors, self._gaps, self._overflows = (
            cache(partial(counts.row, family)) for family in _HEALTH
        )
        # Those that should stay at 0 are there from the start, so that a first one is seen to come.
        for gap in Gap:
            self._gaps(gap)
        for phase in (*PHASES, UNKNOWN, "close"):
            self._errors(phase)
        for label in BOUNDED:
            self._overflows(label)

    def message(self, phase: str, seconds: float) -> None:
        """Count a message from Envoy that was answered in so many seconds."""
        times = self._times(phase)
        times[0] += seconds
        times[1 + bisect_left(_MESSAGE, seconds)] += 1.0

    def error(self, phase: str) -> None:
        """Count a fault of our own."""
        self._errors(phase)[0] += 1.0

    def gap(self, gap: Gap) -> None:
        """Count an exchange of which something is not known."""
        self._gaps(gap)[0] += 1.0

    def overflow(self, label: str) -> None:
        """Count a label value that was called `other`."""
        self._overflows(label)[0] += 1.0

    def record(self, record: Record, labels: Labels) -> None:
        """Count an exchange that ended."""
        self._calls.record(record, labels)

    def exposition(self) -> bytes:
        """Return all metrics in the classic text format."""
        return text_format(
            self._counts.rows, self.streams_open.row[0], generate_latest(ProcessCollector(registry=None))
        )


Rows = Iterable[tuple[str, Iterable[float]]]
"""What there is of a metric: each row with the text of its labels."""


def text_format(rows: Callable[[Family], Rows], streams_open: float, process: bytes) -> bytes:
    """Return what was counted in the classic text format, then a text about the process."""
    shown: list[tuple[Family, Rows]] = [(family, rows(family)) for family in FAMILIES]
    shown.append((_OPEN, [("", (streams_open,))]))
    shown.append((_MESSAGES, [(labels, (sum([*times][1:]),)) for labels, times in rows(_MESSAGE_SECONDS)]))
    shown += [(family, rows(family)) for family in _HEALTH]
    shown.append((_BUILD, [(_BUILD.labels((__version__,)), (1.0,))]))
    # A buffer, since nothing else runs while megabytes are joined or encoded at once.
    text = BytesIO()
    for family, found in shown:
        for part in family.text(found):
            text.write(part)
    text.write(process)
    return text.getvalue()
