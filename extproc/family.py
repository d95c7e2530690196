"""What a metric is called, and its text in Prometheus's classic format.

The text is what prometheus-client's `generate_latest` writes, but for the suffix that it gives to counters. It is
written in a thread beside the event loop, with which it takes turns: so a row is one `%` on a template.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate

from prometheus_client.utils import floatToGoString

# Most are small whole numbers, and the buckets above the largest value of a histogram have all the same.
_number = lru_cache(1024)(floatToGoString)

_HERE = "\0"


class Family:
    """One metric. It counts in rows: of one value, or, if it has bounds, of the sum and the count of each bucket."""

    def __init__(
        self, name: str, kind: str, text: str, labels: Sequence[str] = (), bounds: Sequence[float] = ()
    ) -> None:
        self.name = name
        self.bounds = bounds
        self.size = len(bounds) + 2 if bounds else 1
        self._labels = labels
        self._head = f"# HELP {name} {text}\n# TYPE {name} {kind}\n".encode()
        self._pieces = self._template().split(_HERE)

    def _template(self) -> str:
        labels = f"{{{_HERE}}}" if self._labels else ""
        if not self.bounds:
            return f"{self.name}{labels} %s\n"
        # Labels are in the order of their names; ours are all before a bucket's or all after it.
        with_le = f'{{le="%s",{_HERE}}}' if min(self._labels) > "le" else f'{{{_HERE},le="%s"}}'
        buckets = [f"{self.name}_bucket{with_le % _number(bound)} %s\n" for bound in (*self.bounds, float("inf"))]
        return "".join((*buckets, f"{self.name}_count{labels} %s\n", f"{self.name}_sum{labels} %s\n"))

    def labels(self, values: Iterable[str]) -> str:
        """Return the text of labels, which stands for them."""
        pairs = sorted(zip(self._labels, values, strict=True))
        return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)

    def text(self, rows: Iterable[tuple[str, Iterable[float]]]) -> Iterator[bytes]:
        """Yield the text of rows, each with that of its labels."""
        yield self._head
        for labels, row in rows:
            values = [*row]
            if self.bounds:
                total, *counts = values
                values = [*accumulate(counts)]
                values += values[-1], total
            template = labels.replace("%", "%%").join(self._pieces)
            yield (template % tuple(map(_number, values))).encode()


def _escaped(value: str) -> str:
    # https://prometheus.io/docs/instrumenting/exposition_formats/#comments-help-text-and-type-information
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
