from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from extproc.labels import UNKNOWN
from extproc.message_times import MessageTimes, MessageTimesCollector
from extproc.wire.replies import PHASES

BOUNDS = [0.00001 * 4**n for n in range(9)]

# Each to the phase of that number.
Messages = list[tuple[int, float]]
MESSAGES = st.lists(
    st.tuples(st.integers(0, len(PHASES)), st.floats(0, 10) | st.sampled_from(BOUNDS) | st.just(float("inf")))
)


def shown(*processes: Messages) -> set[str]:
    """Return what is shown of the messages of some processes."""
    times = [MessageTimes() for _ in processes]
    for each, messages in zip(times, processes, strict=True):
        for phase, seconds in messages:
            each.add((*PHASES, UNKNOWN)[phase], seconds)
    registry = CollectorRegistry()
    registry.register(MessageTimesCollector([each.cells for each in times]))
    return set(generate_latest(registry).decode().splitlines())


def expected(messages: Messages) -> set[str]:
    """Return what the library's own metrics show."""
    registry = CollectorRegistry()
    counter = Counter("extproc_messages", "Messages from Envoy.", ("phase",), registry=registry)
    histogram = Histogram(
        "extproc_message_seconds",
        "Time to answer a message from Envoy.",
        ("phase",),
        buckets=BOUNDS,
        registry=registry,
    )
    for phase, seconds in messages:
        labels = (*PHASES, UNKNOWN)[phase]
        counter.labels(labels).inc()
        histogram.labels(labels).observe(seconds)
    lines = generate_latest(registry).decode().splitlines()
    return {line for line in lines if "_created" not in line}


@given(MESSAGES)
def test_as_the_library_has_it(messages: Messages) -> None:
    """What is shown is what the library's counter and histogram would show."""
    assert shown(messages) == expected(messages)


@pytest.mark.parametrize("seconds", BOUNDS)
def test_bounds_are_inclusive(seconds: float) -> None:
    """A message that took just as long as a bucket says is in it."""
    assert shown([(0, seconds)]) == expected([(0, seconds)])


def test_processes_are_added_up() -> None:
    """The messages of several processes are shown as those of one."""
    first: Messages = [(0, 0.5), (1, 0.25), (0, 0.125)]
    second: Messages = [(0, 4.0), (2, 0.5)]
    assert shown(first, [], second) == expected(first + second)
