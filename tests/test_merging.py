"""What several processes have counted is shown as if one had."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from extproc.core.facts import Gap, Outcome, Usage
from extproc.merging import Board
from extproc.metrics import Metrics
from tests.test_metrics import LABELS, ended

WORKERS = 3


def count(metrics: Sequence[Metrics]) -> None:
    """Count all kinds of things, each in the next of these."""
    for number in range(20):
        each = metrics[number % len(metrics)]
        labels = LABELS._replace(model=f"model {number % 5}", destination="é" * (number % 2))
        usage = Usage(number, 2, 3, number, None if number % 3 else 5, 6)
        each.record(ended(usage, list(Outcome)[number % 3], 200, first_token=number / 8, per_token=number / 64), labels)
        each.message("request_body", number / 4096)
        each.streams_open.inc()
        each.gap(Gap.NO_USAGE)
        each.error("close")
        each.overflow("model")
    metrics[0].streams_open.dec()


def lines(text: bytes) -> list[str]:
    """Return the lines, without those about the processes."""
    return sorted(line for line in text.decode().splitlines() if not re.search(r"\b(process|extproc_worker)_", line))


def test_added_up(tmp_path: Path) -> None:
    """The values of several processes are added up, whenever they are looked at."""
    board, alone = Board(str(tmp_path), WORKERS), Metrics()
    workers = [board.metrics(number) for number in range(WORKERS)]
    for _ in range(2):
        count([alone])
        count(workers)
        assert lines(board.exposition()) == lines(alone.exposition())


def test_successor_goes_on(tmp_path: Path) -> None:
    """The counts of a process that has ended stay, and its successor's are added; its streams are open no more."""
    board, alone = Board(str(tmp_path), WORKERS), Metrics()
    for _ in range(3):
        alone.streams_open.row[0] = 0
        board.ended(1, 0)
        count([alone])
        count([board.metrics(1)])
        assert lines(board.exposition()) == lines(alone.exposition())
