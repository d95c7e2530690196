"""The text of a metric is that of prometheus-client, byte for byte."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from extproc.counts import Counts
from extproc.family import Family

BOUNDS = (0.0025, 0.5, 1.0, 4194304.0, 16777216.0, 1e21)
LABELS = [("phase",), ("a_label",), ("b", "error_type", "a")]

VALUES = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["%s", "%%", '"\\\n', "\0", ',le="1"'])
AMOUNTS = st.floats(0, 1e300) | st.integers(0, 10**20) | st.sampled_from([*BOUNDS, 999999.0, 1e6, float("inf")])


def text(family: Family, counts: Counts) -> bytes:
    """Return the text of a metric."""
    return b"".join(family.text(counts.rows(family)))


def calls(values: st.SearchStrategy[str], labels: int) -> st.SearchStrategy[list[tuple[tuple[str, ...], float]]]:
    """Return lists of label values and amounts."""
    return st.lists(st.tuples(st.tuples(*[values] * labels), AMOUNTS))


@pytest.fixture(autouse=True)
def registry() -> CollectorRegistry:
    """Return a registry whose metrics do not say when they were made."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    return CollectorRegistry()


@pytest.mark.parametrize("labels", LABELS)
@given(data=st.data())
def test_counter(labels: Sequence[str], data: st.DataObject) -> None:
    """A counter is written as the library writes it, whatever its labels and its amount are."""
    registry = CollectorRegistry()
    theirs = Counter("x_total", "A text.", labels, registry=registry)
    ours, counts = Family("x_total", "counter", "A text.", labels), Counts()
    for values, amount in data.draw(calls(VALUES, len(labels))):
        theirs.labels(*values).inc(amount)
        counts.row(ours, *values)[0] += amount
    assert text(ours, counts) == generate_latest(registry)


@pytest.mark.parametrize("labels", LABELS)
@given(data=st.data())
def test_histogram(labels: Sequence[str], data: st.DataObject) -> None:
    """So is a histogram, whether its buckets' label comes before its own labels or after them."""
    registry = CollectorRegistry()
    theirs = Histogram("x_seconds", "A text.", labels, buckets=BOUNDS, registry=registry)
    ours, counts = Family("x_seconds", "histogram", "A text.", labels, BOUNDS), Counts()
    for values, amount in data.draw(calls(VALUES, len(labels))):
        theirs.labels(*values).observe(amount)
        row = counts.row(ours, *values)
        row[0] += amount
        row[1 + bisect_left(BOUNDS, amount)] += 1
    assert text(ours, counts) == generate_latest(registry)


def test_without_labels(registry: CollectorRegistry) -> None:
    """So is a metric without labels."""
    Gauge("x", "A text.", registry=registry).set(-2)
    assert b"".join(Family("x", "gauge", "A text.").text([("", (-2.0,))])) == generate_latest(registry)
