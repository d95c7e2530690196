"""How calls to models are counted.

Token counters have the names of the contract, which end in no `_total`; OpenTelemetry's GenAI metrics have its names
and recommended buckets (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/), dots as underscores.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

from extproc.core.facts import Outcome, Record, UsageStatus
from extproc.counts import Counts, Row
from extproc.family import Family

_SOURCE = (
    "llmproxy_source_workload",
    "llmproxy_source_workload_namespace",
    "llmproxy_destination_service",
    "llmproxy_model",
)
_GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model")

_TOKENS = [4**n for n in range(14)]
_DURATION = [0.01 * 2**n for n in range(14)]
_FIRST_TOKEN = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
_PER_TOKEN = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]

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
_TOKEN_COUNTERS = (_INPUT, _OUTPUT, _CACHED, _CACHE_CREATION, _REASONING)
FAMILIES = (*_TOKEN_COUNTERS, _REQUESTS, _USAGE, _SECONDS, _FIRST, _PER)

# There can be more combinations of labels than there are rows.
_REMEMBERED = 4096


class Labels(NamedTuple):
    """Who called what, as bounded label values."""

    source_workload: str
    source_namespace: str
    destination: str
    model: str
    response_model: str


_Call = tuple[Labels, Outcome, int, UsageStatus, str, str, tuple[bool, ...]]
"""What says where a call is counted: its labels, and what is absent, as absent is not zero."""


class Calls:
    """Counts calls; those like others find their rows in one step."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._rows = lru_cache(_REMEMBERED)(self._find)

    def record(self, record: Record, labels: Labels) -> None:
        """Count a call that ended."""
        facts, outcome, status, duration = record
        read, written, _, cached, cache_creation, reasoning = facts.usage
        first, per = facts.time_to_first_token, facts.time_per_output_token
        absent = (
            read is None,
            written is None,
            cached is None,
            cache_creation is None,
            reasoning is None,
            first is None,
            per is None,
        )
        rows = self._rows((labels, outcome, status, facts.usage_status, facts.operation, facts.provider, absent))
        requests, durations, reads, writes, caches, creations, reasonings, firsts, pers, inputs, outputs = rows
        # A loop would take twice as long.
        requests[0] += 1.0
        durations[0] += duration
        durations[1 + bisect_left(_DURATION, duration)] += 1.0
        if read is not None:
            reads[0] += read
            inputs[0] += read
            inputs[1 + bisect_left(_TOKENS, read)] += 1.0
        if written is not None:
            writes[0] += written
            outputs[0] += written
            outputs[1 + bisect_left(_TOKENS, written)] += 1.0
        if cached is not None:
            caches[0] += cached
        if cache_creation is not None:
            creations[0] += cache_creation
        if reasoning is not None:
            reasonings[0] += reasoning
        if first is not None:
            firsts[0] += first
            firsts[1 + bisect_left(_FIRST_TOKEN, first)] += 1.0
        if per is not None:
            pers[0] += per
            pers[1 + bisect_left(_PER_TOKEN, per)] += 1.0

    def _find(self, call: _Call) -> tuple[Row, ...]:
        labels, outcome, status, usage, operation, provider, absent = call
        source = labels[:4]
        gen_ai = (operation, provider, labels.model, labels.response_model)
        places = (
            (_REQUESTS, (*source, outcome, usage, str(status))),
            (_SECONDS, (*gen_ai, _error_type(outcome, status))),
            *((family, source) for family in _TOKEN_COUNTERS),
            (_FIRST, gen_ai),
            (_PER, gen_ai),
            (_USAGE, (*gen_ai, "input")),
            (_USAGE, (*gen_ai, "output")),
        )
        nothing = (False, False, *absent, *absent[:2])
        return tuple(
            [] if none else self._counts.row(family, *values)
            for none, (family, values) in zip(nothing, places, strict=True)
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
