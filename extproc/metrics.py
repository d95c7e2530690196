"""What the server counts and how it is shown: Prometheus's classic text format.

Token counters have the names of the contract, which end in no `_total`; OpenTelemetry's GenAI metrics have its names
and recommended buckets (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/), dots as underscores.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.registry import Collector

from extproc import __version__
from extproc.core.facts import Gap, Outcome, Record
from extproc.labels import UNKNOWN
from extproc.message_times import MessageTimes, MessageTimesCollector
from extproc.series import Count, Counters, Distribution, Distributions, Family
from extproc.wire.replies import PHASES

BOUNDED = ("source_workload", "source_workload_namespace", "destination_service", "model", "response_model")
"""The labels whose values others choose."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SOURCE = (
    "llmproxy_source_workload",
    "llmproxy_source_workload_namespace",
    "llmproxy_destination_service",
    "llmproxy_model",
)
_GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model")

_TOKENS = [4.0**n for n in range(14)]
_DURATION = [0.01 * 2**n for n in range(14)]
_FIRST_TOKEN = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
_PER_TOKEN = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]

_TOKEN_TYPES = ("input", "output")

Add = Callable[[float], None]
"""Counts something in a series."""

# The library gives every counter the suffix of OpenMetrics; ours carry the names of the contract.
_SUFFIX = re.compile(rb"^((?:# (?:HELP|TYPE) )?(?:asm_llm_proxy|extproc)_\w+?)_total(?=[ {])", re.MULTILINE)


class Labels(NamedTuple):
    """Who called what, as bounded label values."""

    source_workload: str
    source_namespace: str
    destination: str
    model: str
    response_model: str


class _Call:
    """The series that calls of one kind count in; those that not all have are there when one has."""

    __slots__ = ("duration", "first_token", "per_token", "requests", "tokens", "usage")

    def __init__(self, requests: Add, duration: Add) -> None:
        self.requests = requests
        self.duration = duration
        self.tokens: list[Add | None] = [None] * 5
        self.usage: list[Add | None] = [None] * 2
        self.first_token: Add | None = None
        self.per_token: Add | None = None


class Metrics:
    """The counters of one process."""

    def __init__(self, message_times: MessageTimes | None = None, *, is_one_of_several: bool = False) -> None:
        """Begin to count; one of several processes counts in what prometheus-client shares between them."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self._families: list[Family] = []
        self._calls: dict[tuple[object, ...], _Call] = {}

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Callable[..., Count | Counter]:
            if is_one_of_several:
                return cache(Counter(name, text, labels, registry=registry).labels)
            family = Counters(name, text, labels)
            self._families.append(family)
            return family.labels

        def histogram(
            name: str, text: str, labels: tuple[str, ...], buckets: list[float]
        ) -> Callable[..., Distribution | Histogram]:
            if is_one_of_several:
                return cache(Histogram(name, text, labels, buckets=buckets, registry=registry).labels)
            family = Distributions(name, text, labels, buckets)
            self._families.append(family)
            return family.labels

        self._tokens = (
            counter("asm_llm_proxy_prompt_tokens", "Input tokens, cached ones included.", _SOURCE),
            counter("asm_llm_proxy_completion_tokens", "Output tokens, with reasoning.", _SOURCE),
            counter("asm_llm_proxy_cached_prompt_tokens", "Input tokens read from a cache.", _SOURCE),
            counter("asm_llm_proxy_cache_creation_prompt_tokens", "Input tokens written to a cache.", _SOURCE),
            counter("asm_llm_proxy_reasoning_completion_tokens", "Output tokens spent on reasoning.", _SOURCE),
        )
        self._requests = counter(
            "asm_llm_proxy_requests", "Calls to models that ended.", (*_SOURCE, "outcome", "usage", "response_code")
        )
        self._usage = histogram(
            "gen_ai_client_token_usage", "Tokens used by a call.", (*_GEN_AI, "gen_ai_token_type"), _TOKENS
        )
        self._duration = histogram(
            "gen_ai_server_request_duration_seconds", "Duration of a call.", (*_GEN_AI, "error_type"), _DURATION
        )
        self._first_token = histogram(
            "gen_ai_server_time_to_first_token_seconds", "Time to the first token of a stream.", _GEN_AI, _FIRST_TOKEN
        )
        self._per_token = histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time per output token of a stream after the first.",
            _GEN_AI,
            _PER_TOKEN,
        )
        self.streams_open = Gauge(
            "extproc_streams_open",
            "Streams from Envoy that are open.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._message_times = message_times or MessageTimes()
        registry.register(MessageTimesCollector([self._message_times.cells]))
        self._errors = counter("extproc_errors", "Messages answered in spite of a fault of this server.", ("phase",))
        self._gaps = counter("extproc_gaps", "Exchanges of which something is not known, by the reason.", ("gap",))
        self._overflows = counter("extproc_label_overflows", "Label values that were called `other`.", ("label",))
        build = Gauge(
            "extproc_build_info",
            "The version of this server.",
            ("version",),
            registry=registry,
            multiprocess_mode="max",
        )
        build.labels(__version__).set(1)
        ProcessCollector(registry=registry)
        # Those that should stay at 0 are there from the start, so that a first one is seen to come.
        for gap in Gap:
            self._gaps(gap)
        for phase in (*PHASES, UNKNOWN, "close"):
            self._errors(phase)
        for label in BOUNDED:
            self._overflows(label)

    def message(self, phase: str, seconds: float) -> None:
        """Count a message from Envoy that was answered in so many seconds."""
        self._message_times.add(phase, seconds)

    def error(self, phase: str) -> None:
        """Count a fault of our own."""
        self._errors(phase).inc()

    def gap(self, gap: Gap) -> None:
        """Count an exchange of which something is not known."""
        self._gaps(gap).inc()

    def overflow(self, label: str) -> None:
        """Count a label value that was called `other`."""
        self._overflows(label).inc()

    def record(self, record: Record, labels: Labels) -> None:
        """Count an exchange that ended."""
        facts, usage = record.facts, record.facts.usage
        key = (labels, facts.operation, facts.provider, record.outcome, facts.usage_status, record.status)
        call = self._calls.get(key)
        source = labels[:4]
        gen_ai = (facts.operation, facts.provider, labels.model, labels.response_model)
        if call is None:
            requests = self._requests(*source, record.outcome, facts.usage_status, record.status)
            duration = self._duration(*gen_ai, _error_type(record))
            call = self._calls[key] = _Call(requests.inc, duration.observe)
        call.requests(1)
        call.duration(record.duration)
        counted = (
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            usage.cache_creation_input_tokens,
            usage.reasoning_output_tokens,
        )
        for position, tokens in enumerate(counted):
            if tokens is not None:
                add = call.tokens[position]
                if add is None:
                    add = call.tokens[position] = self._tokens[position](*source).inc
                add(tokens)
        for position, token_type in enumerate(_TOKEN_TYPES):
            if (tokens := counted[position]) is not None:
                add = call.usage[position]
                if add is None:
                    add = call.usage[position] = self._usage(*gen_ai, token_type).observe
                add(tokens)
        if facts.time_to_first_token is not None:
            call.first_token = call.first_token or self._first_token(*gen_ai).observe
            call.first_token(facts.time_to_first_token)
        if facts.time_per_output_token is not None:
            call.per_token = call.per_token or self._per_token(*gen_ai).observe
            call.per_token(facts.time_per_output_token)

    def exposition(self) -> bytes:
        """Return all metrics in the classic text format."""
        ours = "".join(line for family in self._families for line in family.text())
        return ours.encode() + text_format(self._registry)


def text_format(registry: CollectorRegistry) -> bytes:
    """Return what is in a registry in the classic text format, under our names."""
    # Metric by metric: while all of it is looked through at once, no other thread runs.
    return b"".join(_text(metric) for metric in registry.collect())


def _text(metric: Metric) -> bytes:
    text = generate_latest(_One(metric))
    return _SUFFIX.sub(rb"\1", text) if metric.type == "counter" else text


class _One(Collector):
    """A single metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> tuple[Metric]:
        """See Collector."""
        return (self._metric,)


def _error_type(record: Record) -> str:
    # https://opentelemetry.io/docs/specs/semconv/registry/attributes/error/: the status of a failed call, else `_OTHER`
    match record.outcome:
        case Outcome.COMPLETE:
            return ""
        case Outcome.ERROR if record.status >= 400:  # noqa: PLR2004 - RFC 9110, section 15: an error status
            return str(record.status)
        case _:
            return "_OTHER"
