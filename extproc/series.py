"""Counters and distributions of one process, in plain cells.

What is counted with every exchange has to cost little, and a thousand sets of labels are 80,000 lines when they are
shown. The library takes locks, tries buckets one by one and makes an object for each line
(docs/decisions/0006-workers.md). One thread counts, others may look on; the text is the one that the library writes:
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client.utils import floatToGoString

_number: Callable[[float], str] = floatToGoString


class Family(Protocol):
    """All series of one name."""

    def text(self) -> Iterator[str]:
        """Yield lines of the classic text format, each with its end."""
        ...


class Count:
    """One series of a counter."""

    __slots__ = ("labels", "value")

    def __init__(self, labels: str) -> None:
        self.labels = labels
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add to it."""
        self.value += amount


class Counters:
    """A counter, by its labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._head = _head(name, text, "counter")
        self._name = name
        self._labels = labels
        self._series: dict[tuple[str, ...], Count] = {}

    def labels(self, *values: object) -> Count:
        """Return the series with these values of its labels, which is there from then on."""
        key = tuple(map(str, values))
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = Count(_written(self._labels, key))
        return found

    def text(self) -> Iterator[str]:
        """See `Family`."""
        yield self._head
        for series in list(self._series.values()):
            yield f"{self._name}{{{series.labels}}} {_number(series.value)}\n"


class Distribution:
    """One series of a histogram."""

    __slots__ = ("_bounds", "cells", "labels", "sum")

    def __init__(self, labels: str, bounds: Sequence[float]) -> None:
        self.labels = labels
        self.cells = [0] * (len(bounds) + 1)
        """How many there were in each bucket; the last one is for those beyond all bounds."""
        self.sum = 0.0
        self._bounds = bounds

    def observe(self, value: float) -> None:
        """Take a value."""
        self.cells[bisect_left(self._bounds, value)] += 1
        self.sum += value


class Distributions:
    """A histogram, by its labels, of which `le` would come last among them."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._head = _head(name, text, "histogram")
        self._name = name
        self._labels = labels
        self._bounds = bounds
        self._limits = [*map(_number, bounds), "+Inf"]
        self._series: dict[tuple[str, ...], Distribution] = {}

    def labels(self, *values: object) -> Distribution:
        """Return the series with these values of its labels, which is there from then on."""
        key = tuple(map(str, values))
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = Distribution(_written(self._labels, key), self._bounds)
        return found

    def text(self) -> Iterator[str]:
        """See `Family`."""
        yield self._head
        for series in list(self._series.values()):
            begin = f'{self._name}_bucket{{{series.labels},le="'
            counts = list(accumulate(list(series.cells)))
            for limit, number in zip(self._limits, counts, strict=True):
                yield f'{begin}{limit}"}} {_number(float(number))}\n'
            yield f"{self._name}_count{{{series.labels}}} {_number(float(counts[-1]))}\n"
            yield f"{self._name}_sum{{{series.labels}}} {_number(series.sum)}\n"


def _head(name: str, text: str, kind: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _written(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(zip(names, values, strict=True)))


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
