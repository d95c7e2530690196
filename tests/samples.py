"""Reads Prometheus's text format, for tests."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def total(text: str | bytes, name: str, **labels: str) -> float | None:
    """Add up the samples `name` that have these labels; `None` if there is none."""
    text = text.decode() if isinstance(text, bytes) else text
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        # The parser gives counters the suffix of OpenMetrics.
        if name in (sample.name, sample.name.removesuffix("_total")) and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None
