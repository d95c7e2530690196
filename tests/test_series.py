"""Our own counters and distributions, held against the library's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from extproc.series import Counters, Distributions

LABELS = ("model", "a", "other")
VALUES = st.tuples(*[st.text(max_size=3) | st.sampled_from(("gpt", 'a"b', "a\\nb", "a\\\\b", "\u2028"))] * 3)
AMOUNTS = st.integers(0, 10**7).map(float) | st.floats(0, 1e9)
BOUNDS = [0.001, 0.5, 1.0, 4.0, 1e6, 67108864.0]


def written(make: Callable[[CollectorRegistry], Any], add: Callable[[Any], None]) -> str:
    """Return what the library writes."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    add(make(registry))
    return generate_latest(registry).decode()


@given(st.lists(st.tuples(VALUES, AMOUNTS)))
def test_counters(added: list[tuple[tuple[str, ...], float]]) -> None:
    """The same is counted and written as by the library, under the same name without its suffix."""

    def add(counter: Any) -> None:  # noqa: ANN401 - ours or the library's
        for labels, amount in added:
            counter.labels(*labels).inc(amount)

    ours = Counters("tokens", "Some text.", LABELS)
    add(ours)
    expected = written(lambda registry: Counter("tokens", "Some text.", LABELS, registry=registry), add)
    assert "".join(ours.text()) == expected.replace("tokens_total", "tokens")


@given(st.lists(st.tuples(VALUES, AMOUNTS | st.sampled_from(BOUNDS))))
def test_distributions(observed: list[tuple[tuple[str, ...], float]]) -> None:
    """The same is counted in the same buckets and written as by the library, also on the bounds."""

    def add(histogram: Any) -> None:  # noqa: ANN401 - ours or the library's
        for labels, amount in observed:
            histogram.labels(*labels).observe(amount)

    labels = ("a", "b", "c")
    ours = Distributions("seconds", "Some text.", labels, BOUNDS)
    add(ours)
    expected = written(
        lambda registry: Histogram("seconds", "Some text.", labels, buckets=BOUNDS, registry=registry), add
    )
    assert "".join(ours.text()) == expected
