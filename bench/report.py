"""What was measured, as Markdown that can be read on a terminal too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite, nan
from statistics import median
from typing import NamedTuple

from bench.contenders import ALONE
from bench.loads import GROWTHS, Load
from bench.measure import Result, Results, Sample

_NOTHING = "-"
_MIB, _KIB = 1024 * 1024, 1024

Value = Callable[[Sample], float]


class Row(NamedTuple):
    """A contender, and those that it is compared with."""

    result: Result
    alone: Result | None
    base: Result | None

    def median(self, value: Value) -> float:
        """Return the median of the rounds."""
        return median(map(value, self.result.samples))

    def ratio(self, other: Result | None, value: Value) -> float:
        """Return the median of the ratios, each of two samples of one round."""
        return self._against(other, lambda mine, its: mine / its if its else nan, value)

    def added(self, value: Value) -> float:
        """Return the median of what comes on top of Envoy alone in the same round."""
        return self._against(self.alone, lambda mine, its: mine - its, value)

    def _against(self, other: Result | None, compared: Callable[[float, float], float], value: Value) -> float:
        if other is None:
            return nan
        pairs = zip(self.result.samples, other.samples, strict=True)
        return median(compared(value(mine), value(its)) for mine, its in pairs)


Cell = Callable[[Row], str]


def number(value: float) -> str:
    """Return three digits, or all before the point."""
    if not isfinite(value):
        return _NOTHING
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def _latency(value: Value) -> Cell:
    """Milliseconds on top of Envoy alone; its own in brackets."""

    def cell(row: Row) -> str:
        if row.result.contender.name == ALONE:
            return f"({number(row.median(value) / 1000)})"
        return number(row.added(value) / 1000)

    return cell


def _of_server(cell: Cell) -> Cell:
    return lambda row: cell(row) if row.result.contender.command else _NOTHING


def _columns(base: str, *, exchanges: bool) -> Mapping[str, Cell]:
    """Return the columns, ratios first."""
    first: dict[str, Cell] = {
        f"rate/{ALONE}": lambda row: number(row.ratio(row.alone, lambda sample: sample.rate)),
        f"CPU/{base}": _of_server(lambda row: number(row.ratio(row.base, lambda sample: sample.server_cpu))),
        "rate, 1/s": lambda row: number(row.median(lambda sample: sample.rate)),
        "p50, +ms": _latency(lambda sample: sample.p50),
        "p99, +ms": _latency(lambda sample: sample.p99),
        "CPU, us": _of_server(lambda row: number(row.median(lambda sample: sample.server_cpu))),
    }
    last: dict[str, Cell] = {
        "Envoy, us": lambda row: number(row.median(lambda sample: sample.envoy_cpu)),
        "MiB": _of_server(lambda row: number(row.result.server_peak / _MIB)),
        "Envoy, MiB": lambda row: number(row.result.envoy_peak / _MIB),
    }
    return {**first, **(_OF_EXCHANGES if exchanges else _OF_STREAMS), **last}


def _counted(row: Row) -> str:
    if not (row.result.contender.counts and isinstance(row.result.load, Load)):
        return _NOTHING
    return f"{row.median(lambda sample: sample.counted):.0%}"


def _memory_per_stream(row: Row) -> str:
    load = row.result.load
    if isinstance(load, Load):
        return _NOTHING
    return number((row.result.server_peak - row.result.server_rest) / load.number / _KIB)


_OF_EXCHANGES: Mapping[str, Cell] = {
    "messages": _of_server(lambda row: number(row.median(lambda sample: sample.messages))),
    "us/message": _of_server(
        lambda row: number(row.median(lambda sample: sample.server_cpu / (sample.messages or nan)))
    ),
    "counted": _counted,
}
_OF_STREAMS: Mapping[str, Cell] = {
    "cores": _of_server(lambda row: f"{row.median(lambda sample: sample.server_cpu * sample.rate / 1e6):.2f}"),
    "Envoy, cores": lambda row: f"{row.median(lambda sample: sample.envoy_cpu * sample.rate / 1e6):.2f}",
    "KiB/stream": _of_server(_memory_per_stream),
}


def section(results: Results, base: str) -> str:
    """Return what was measured under one load."""
    load = next(iter(results.values())).load
    columns = _columns(base, exchanges=isinstance(load, Load))
    rows = [Row(result, results.get(ALONE), results.get(base)) for result in results.values()]
    body = [[row.result.contender.name, *(cell(row) for cell in columns.values())] for row in rows]
    return f"## {load.name}: {load.text}\n\n{table(['', *columns], body)}\n\n{_notes(rows)}"


def _notes(rows: Sequence[Row]) -> str:
    """Return what helps to tell how far the figures can be trusted."""
    samples = [sample for row in rows for sample in row.result.samples]
    notes = [f"Others kept {median(sample.others for sample in samples):.1f} cores busy."]
    if len(rows[0].result.samples) > 1:
        spread = max(_spread([sample.rate for sample in row.result.samples]) for row in rows)
        notes.append(f"From round to round, the rate of a contender differed by up to {spread:.0%}.")
    for row in rows:
        passed_over = sum(sample.passed_over for sample in row.result.samples)
        failed = sum(sample.failed for sample in row.result.samples)
        if passed_over:
            notes.append(f"{row.result.contender.name}: Envoy went on without it in {passed_over:,} exchanges.")
        if failed:
            notes.append(f"{row.result.contender.name}: {failed:,} exchanges failed.")
    return "\n".join(notes)


def _spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / (median(values) or nan)


def growth(all_results: Mapping[str, Results], base: str) -> str:
    """Return how costs grow with each thing in which loads differ, as far as it was measured."""
    sections = []
    for what, points in GROWTHS.items():
        measured = {label: all_results[name] for label, name in points.items() if name in all_results}
        if len(measured) > 1:
            sections.append(f"## Growth with {what}\n\n{_growth(measured, base)}")
    return "\n\n".join(sections)


_GROWING = ("CPU, us", "p50, +ms", "Envoy, us", "MiB", "Envoy, MiB")
_OF_SERVER = ("CPU, us", "MiB")


def _growth(measured: Mapping[str, Results], base: str) -> str:
    columns = _columns(base, exchanges=True)
    body = [
        [
            f"{heading}: {name}",
            *(
                columns[heading](Row(results[name], results.get(ALONE), results.get(base)))
                for results in measured.values()
            ),
        ]
        for heading in _GROWING
        for name, result in next(iter(measured.values())).items()
        if result.contender.command or heading not in _OF_SERVER
    ]
    return table(["", *measured], body)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(heads), rule, *map(line, rows)])
