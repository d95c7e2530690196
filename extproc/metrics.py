"""What the server counts and how it is shown: Prometheus's classic text format.

Token counters have the names of the contract, which end in no `_total`; OpenTelemetry's GenAI metrics have its names
and recommended buckets (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/), dots as underscores.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache, partial
from io import BytesIO
from typing import NamedTuple, TypeAlias

from prometheus_client import ProcessCollector, generate_latest

from extproc import __version__
from extproc.core.facts import Gap, Outcome, Record, UsageStatus
from extproc.counts import Counts, Row
from extproc.families import Family
from extproc.labels import UNKNOWN
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
_MESSAGE = [0.00001 * 4**n for n in range(9)]

_INPUT = Family("asm_llm_proxy_prompt_tokens", "counter", "Input tokens, cached ones included.", _SOURCE)
_OUTPUT = Family("asm_llm_proxy_completion_tokens", "counter", "Output tokens, with reasoning.", _SOURCE)
_CACHED = Family("asm_llm_proxy_cached_prompt_tokens", "counter", "Input tokens read from a cache.", _SOURCE)
_CACHE_CREATION = Family(
    "asm_llm_proxy_cache_creation_prompt_tokens", "counter", "Input tokens written to a cache.", _SOURCE
)
_REASONING = Family(
    "asm_llm_proxy_reasoning_completion_tokens", "counter", "Output tokens spent on reasoning.", _SOURCE
)
_REQUESTS = Family(
    "asm_llm_proxy_requests", "counter", "Calls to models that ended.", (*_SOURCE, "outcome", "usage", "response_code")
)
_USAGE = Family(
    "gen_ai_client_token_usage", "histogram", "Tokens used by a call.", (*_GEN_AI, "gen_ai_token_type"), _TOKENS
)
_SECONDS = Family(
    "gen_ai_server_request_duration_seconds", "histogram", "Duration of a call.", (*_GEN_AI, "error_type"), _DURATION
)
_FIRST = Family(
    "gen_ai_server_time_to_first_token_seconds",
    "histogram",
    "Time to the first token of a stream.",
    _GEN_AI,
    _FIRST_TOKEN,
)
_PER = Family(
    "gen_ai_server_time_per_output_token_seconds",
    "histogram",
    "Time per output token of a stream after the first.",
    _GEN_AI,
    _PER_TOKEN,
)
_OPEN = Family("extproc_streams_open", "gauge", "Streams from Envoy that are open.")
_MESSAGES = Family("extproc_messages", "counter", "Messages from Envoy.", ("phase",))
_MESSAGE_SECONDS = Family(
    "extproc_message_seconds", "histogram", "Time to answer a message from Envoy.", ("phase",), _MESSAGE
)
_ERRORS = Family("extproc_errors", "counter", "Messages answered in spite of a fault of this server.", ("phase",))
_GAPS = Family("extproc_gaps", "counter", "Exchanges of which something is not known, by the reason.", ("gap",))
_OVERFLOWS = Family("extproc_label_overflows", "counter", "Label values that were called `other`.", ("label",))
_BUILD = Family("extproc_build_info", "gauge", "The version of this server.", ("version",))

_COUNTED = (_INPUT, _OUTPUT, _CACHED, _CACHE_CREATION, _REASONING, _REQUESTS, _USAGE, _SECONDS, _FIRST, _PER)
_HEALTH = (_MESSAGE_SECONDS, _ERRORS, _GAPS, _OVERFLOWS)

# What an exchange adds to: the values that `Metrics.record` has, in their order.
_ADDED = (_REQUESTS, _SECONDS, _INPUT, _OUTPUT, _CACHED, _CACHE_CREATION, _REASONING, _USAGE, _USAGE, _FIRST, _PER)
_BOUNDS = tuple(family.bounds for family in _ADDED)

# Exchanges with the same labels find their rows at once; there can be more combinations of labels than rows.
_REMEMBERED = 4096


class Labels(NamedTuple):
    """Who called what, as bounded label values."""

    source_workload: str
    source_namespace: str
    destination: str
    model: str
    response_model: str


class Gauge:
    """A number of things, in a row of its own."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def inc(self) -> None:
        """Count one more."""
        self.row[0] += 1.0

    def dec(self) -> None:
        """Count one less."""
        self.row[0] -= 1.0


class Metrics:
    """What one process counts: one thread counts, others may read."""

    def __init__(self, counts: Counts | None = None, streams_open: Row | None = None) -> None:
        self._counts = counts = counts or Counts()
        self.streams_open = Gauge([0.0] if streams_open is None else streams_open)
        self._rows = lru_cache(_REMEMBERED)(_no_rows)
        self._times = cache(partial(counts.row, _MESSAGE_SECONDS))
        # Those that should stay at 0 are there from the start, so that a first one is seen to come.
        for gap in Gap:
            counts.row(_GAPS, gap)
        for phase in (*PHASES, UNKNOWN, "close"):
            counts.row(_ERRORS, phase)
        for label in BOUNDED:
            counts.row(_OVERFLOWS, label)

    def message(self, phase: str, seconds: float) -> None:
        """Count a message from Envoy that was answered in so many seconds."""
        times = self._times(phase)
        times[bisect_left(_MESSAGE, seconds)] += 1.0
        times[-1] += seconds

    def error(self, phase: str) -> None:
        """Count a fault of our own."""
        self._counts.row(_ERRORS, phase)[0] += 1.0

    def gap(self, gap: Gap) -> None:
        """Count an exchange of which something is not known."""
        self._counts.row(_GAPS, gap)[0] += 1.0

    def overflow(self, label: str) -> None:
        """Count a label value that was called `other`."""
        self._counts.row(_OVERFLOWS, label)[0] += 1.0

    def record(self, record: Record, labels: Labels) -> None:
        """Count an exchange that ended."""
        facts, outcome, status, duration = record
        read, written, _, cached, cache_creation, reasoning = facts.usage
        call = (labels, outcome, status, facts.usage_status, facts.operation, facts.provider)
        rows = self._rows(call)
        first, per = facts.time_to_first_token, facts.time_per_output_token
        added = (1, duration, read, written, cached, cache_creation, reasoning, read, written, first, per)
        for number, value in enumerate(added):
            if value is not None:
                row = rows[number] or self._row(rows, number, call)
                row[-1] += value
                if bounds := _BOUNDS[number]:
                    row[bisect_left(bounds, value)] += 1.0

    def _row(self, rows: _Rows, number: int, call: _Call) -> Row:
        # Only when there is something to count: absent is not zero.
        row = rows[number] = self._counts.row(_ADDED[number], *_values(call)[number])
        return row

    def exposition(self) -> bytes:
        """Return all metrics in the classic text format."""
        return text_format(
            self._counts.rows, self.streams_open.row[0], generate_latest(ProcessCollector(registry=None))
        )


_Rows: TypeAlias = "list[Row | None]"
_Call = tuple[Labels, Outcome, int, UsageStatus, str, str]


def _no_rows(_: _Call) -> _Rows:
    return [None] * len(_ADDED)


def _values(call: _Call) -> Sequence[Sequence[str]]:
    """Return the label values of what an exchange adds to."""
    labels, outcome, status, usage, operation, provider = call
    source = labels[:4]
    gen_ai = (operation, provider, labels.model, labels.response_model)
    return (
        (*source, outcome, usage, str(status)),
        (*gen_ai, _error_type(outcome, status)),
        *[source] * 5,
        (*gen_ai, "input"),
        (*gen_ai, "output"),
        gen_ai,
        gen_ai,
    )


def _error_type(outcome: Outcome, status: int) -> str:
    # https://opentelemetry.io/docs/specs/semconv/registry/attributes/error/: the status of a failed call, else `_OTHER`
    match outcome:
        case Outcome.COMPLETE:
            return ""
        case Outcome.ERROR if status >= 400:  # noqa: PLR2004 - RFC 9110, section 15: an error status
            return str(status)
        case _:
            return "_OTHER"


Rows = Iterable[tuple[str, Iterable[float]]]
"""What there is of a metric: each row with the text of its labels."""


def text_format(rows: Callable[[Family], Rows], streams_open: float, process: bytes) -> bytes:
    """Return what was counted in the classic text format, then a text about the process."""
    shown: list[tuple[Family, Rows]] = [(family, rows(family)) for family in _COUNTED]
    shown.append((_OPEN, [("", (streams_open,))]))
    shown.append((_MESSAGES, [(labels, (sum([*times][:-1]),)) for labels, times in rows(_MESSAGE_SECONDS)]))
    shown += [(family, rows(family)) for family in _HEALTH]
    shown.append((_BUILD, [(_BUILD.labels((__version__,)), (1.0,))]))
    # A buffer, since nothing else runs while megabytes are joined or encoded at once.
    text = BytesIO()
    for family, found in shown:
        for part in family.text(found):
            text.write(part)
    text.write(process)
    return text.getvalue()
