"""What a process has counted: rows of numbers, by metric and labels.

Every exchange and every message counts, so it has to cost next to nothing: who counts keeps the row and adds to it.
docs/decisions/0006-workers.md says what the library's metrics cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

from extproc.family import Family
from extproc.rows_file import RowsFile

Row: TypeAlias = "list[float] | memoryview[float]"


class Counts:
    """The rows of one process; in a file, they go on where those of its predecessor ended."""

    def __init__(self, file: RowsFile | None = None) -> None:
        self._file = file
        self._rows: defaultdict[str, dict[str, Row]] = defaultdict(dict)
        for name, labels, row in file.news() if file else ():
            self._rows[name][labels] = row

    def row(self, family: Family, *values: str) -> Row:
        """Return the row of a metric with these labels; from now on it is shown."""
        rows, labels = self._rows[family.name], family.labels(values)
        row = rows.get(labels)
        if row is None:
            row = rows[labels] = self._new(family, labels)
        return row

    def _new(self, family: Family, labels: str) -> Row:
        if self._file is None:
            return [0.0] * family.size
        return self._file.add(family.name, labels, family.size)

    def rows(self, family: Family) -> Iterable[tuple[str, Row]]:
        """Return all rows of a metric, each with the text of its labels."""
        # Another thread may be adding some. A list of the items would not do: making it can start a garbage collection,
        # and that another thread.
        return self._rows[family.name].copy().items()
