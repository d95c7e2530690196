"""What an exchange adds to the counters. How they are served: test_exposition.py."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from extproc import __version__
from extproc.core.facts import Facts, Gap, Outcome, Record, Usage, UsageStatus
from extproc.metrics import Labels, Metrics
from tests.deploy.prometheus import tool
from tests.samples import total

LABELS = Labels("sleep", "default", "api.openai.com", "gpt-4", "gpt-4-0613")
SOURCE = {
    "llmproxy_source_workload": "sleep",
    "llmproxy_source_workload_namespace": "default",
    "llmproxy_destination_service": "api.openai.com",
    "llmproxy_model": "gpt-4",
}
GEN_AI = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai",
    "gen_ai_request_model": "gpt-4",
    "gen_ai_response_model": "gpt-4-0613",
}

# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
BUCKETS = {
    "client_token_usage": "1 4 16 64 256 1024 4096 16384 65536 262144 1048576 4194304 16777216 67108864",
    "server_request_duration_seconds": "0.01 0.02 0.04 0.08 0.16 0.32 0.64 1.28 2.56 5.12 10.24 20.48 40.96 81.92",
    "server_time_to_first_token_seconds": (
        "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0"
    ),
    "server_time_per_output_token_seconds": "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5",
}

MESSAGE_BUCKETS = [0.00001 * 4**n for n in range(9)]


def ended(
    usage: Usage | None = None,
    outcome: Outcome = Outcome.COMPLETE,
    status: int = 200,
    first_token: float | None = None,
    per_token: float | None = None,
) -> Record:
    """Return the record of an exchange that took two seconds."""
    facts = Facts("openai", "chat_completions", "chat", "gpt-4", "gpt-4-0613")
    if usage is not None:
        facts.usage, facts.usage_status = usage, UsageStatus.REPORTED
    facts.time_to_first_token, facts.time_per_output_token = first_token, per_token
    return Record(facts, outcome, status, 2.0)


def test_tokens_add_up() -> None:
    """The tokens of all exchanges with the same labels are added up, those with others apart."""
    metrics = Metrics()
    metrics.record(ended(Usage(10, 20, 30, 4, 5, 6)), LABELS)
    metrics.record(ended(Usage(1, 2, 3, 1, 0, 1)), LABELS)
    metrics.record(ended(Usage(100, 200, 300)), LABELS._replace(source_workload="curl"))
    text = metrics.exposition()
    counted = {
        "asm_llm_proxy_prompt_tokens": 11,
        "asm_llm_proxy_completion_tokens": 22,
        "asm_llm_proxy_cached_prompt_tokens": 5,
        "asm_llm_proxy_cache_creation_prompt_tokens": 5,
        "asm_llm_proxy_reasoning_completion_tokens": 7,
    }
    assert {name: total(text, name, **SOURCE) for name in counted} == counted
    assert total(text, "asm_llm_proxy_prompt_tokens", llmproxy_source_workload="curl") == 100
    assert total(text, "asm_llm_proxy_cached_prompt_tokens", llmproxy_source_workload="curl") is None
    assert total(text, "asm_llm_proxy_requests") == 3


def test_absent_is_not_zero() -> None:
    """Counts and times that nobody reported have no sample; the request and its duration have."""
    metrics = Metrics()
    metrics.record(ended(), LABELS)
    text = metrics.exposition()
    for name in ("prompt", "completion", "cached_prompt", "cache_creation_prompt", "reasoning_completion"):
        assert total(text, f"asm_llm_proxy_{name}_tokens") is None
    for name in ("client_token_usage", "server_time_to_first_token_seconds", "server_time_per_output_token_seconds"):
        assert total(text, f"gen_ai_{name}_count") is None
    assert total(text, "asm_llm_proxy_requests", **SOURCE, usage="missing", response_code="200") == 1
    assert total(text, "gen_ai_server_request_duration_seconds_sum", **GEN_AI) == 2


def test_zero_is_counted() -> None:
    """Counts and times of 0 have a sample."""
    metrics = Metrics()
    metrics.record(ended(Usage(0, 0, 0, 0, 0, 0), first_token=0.0, per_token=0.0), LABELS)
    text = metrics.exposition()
    assert total(text, "asm_llm_proxy_prompt_tokens", **SOURCE) == 0
    assert total(text, "asm_llm_proxy_reasoning_completion_tokens", **SOURCE) == 0
    assert total(text, "gen_ai_client_token_usage_count", **GEN_AI) == 2
    assert total(text, "gen_ai_server_time_to_first_token_seconds_count", **GEN_AI) == 1
    assert total(text, "gen_ai_server_time_per_output_token_seconds_count", **GEN_AI) == 1


def test_distributions() -> None:
    """Tokens by their type, and times, are observed once for each exchange that has them."""
    metrics = Metrics()
    metrics.record(ended(Usage(10, 20, 30), first_token=0.2, per_token=0.03), LABELS)
    metrics.record(ended(Usage(input_tokens=5)), LABELS)
    text = metrics.exposition()
    observed = {
        ("gen_ai_client_token_usage", "input"): (2, 15),
        ("gen_ai_client_token_usage", "output"): (1, 20),
    }
    for (name, token_type), expected in observed.items():
        labels = {**GEN_AI, "gen_ai_token_type": token_type}
        assert (total(text, f"{name}_count", **labels), total(text, f"{name}_sum", **labels)) == expected
    assert total(text, "gen_ai_server_time_to_first_token_seconds_sum", **GEN_AI) == 0.2
    assert total(text, "gen_ai_server_time_per_output_token_seconds_sum", **GEN_AI) == 0.03
    assert total(text, "gen_ai_server_request_duration_seconds_count", **GEN_AI) == 2


@pytest.mark.parametrize(("name", "buckets"), BUCKETS.items())
def test_buckets(name: str, buckets: str) -> None:
    """The buckets are those that OpenTelemetry recommends."""
    metrics = Metrics()
    metrics.record(ended(Usage(1, 1, 2), first_token=0.2, per_token=0.03), LABELS)
    text = metrics.exposition().decode()
    [family] = [family for family in text_string_to_metric_families(text) if family.name == f"gen_ai_{name}"]
    found = {float(sample.labels["le"]) for sample in family.samples if sample.name == f"gen_ai_{name}_bucket"}
    assert sorted(found) == [*map(float, buckets.split()), float("inf")]


@pytest.mark.parametrize(
    ("outcome", "status", "error_type"),
    [
        (Outcome.COMPLETE, 200, ""),
        (Outcome.COMPLETE, 302, ""),
        (Outcome.ERROR, 429, "429"),
        (Outcome.ERROR, 500, "500"),
        (Outcome.ERROR, 200, "_OTHER"),
        (Outcome.ERROR, 0, "_OTHER"),
        (Outcome.ABORTED, 200, "_OTHER"),
        (Outcome.ABORTED, 0, "_OTHER"),
    ],
)
def test_outcome(outcome: Outcome, status: int, error_type: str) -> None:
    """A request is counted by how it ended, and its duration by the type of its error."""
    metrics = Metrics()
    metrics.record(ended(Usage(1, 1, 2), outcome, status), LABELS)
    text = metrics.exposition()
    labels = {**SOURCE, "outcome": outcome.value, "usage": "reported", "response_code": str(status)}
    assert total(text, "asm_llm_proxy_requests", **labels) == 1
    duration = "gen_ai_server_request_duration_seconds_count"
    assert total(text, duration, **GEN_AI, error_type=error_type) == 1
    assert total(text, "asm_llm_proxy_prompt_tokens", **SOURCE) == 1, "tokens cost the same however it ended"


def test_own_health() -> None:
    """Messages, faults, gaps, label overflows and open streams are counted."""
    metrics = Metrics()
    for seconds in (0.001, 0.002):
        metrics.message("request_body", seconds)
    metrics.error("request_body")
    metrics.gap(Gap.TRUNCATED)
    metrics.overflow("model")
    metrics.streams_open.inc()
    text = metrics.exposition()
    assert total(text, "extproc_messages", phase="request_body") == 2
    assert total(text, "extproc_message_seconds_sum", phase="request_body") == 0.003
    assert total(text, "extproc_errors", phase="request_body") == 1
    assert {gap: total(text, "extproc_gaps", gap=gap) for gap in Gap} == {gap: gap is Gap.TRUNCATED for gap in Gap}
    assert total(text, "extproc_label_overflows", label="model") == 1
    assert total(text, "extproc_streams_open") == 1
    assert total(text, "extproc_build_info", version=__version__) == 1


def test_each_has_its_own() -> None:
    """What one counts is not in another's text."""
    metrics, other = Metrics(), Metrics()
    metrics.record(ended(), LABELS)
    assert total(other.exposition(), "asm_llm_proxy_requests") is None


class Parsed:
    """What the library has read of a text."""

    def __init__(self, text: bytes) -> None:
        self.families = list(text_string_to_metric_families(text.decode()))

    def collect(self) -> list[Metric]:
        """See prometheus_client.registry.Collector."""
        return self.families


def full() -> Metrics:
    """Return metrics that have everything."""
    metrics = Metrics()
    for number, outcome in enumerate(Outcome):
        usage = Usage(10**number, 2, 3, 0, 5, 6)
        metrics.record(ended(usage, outcome, 200 + number, first_token=0.2, per_token=0.03), LABELS)
        metrics.record(ended(outcome=outcome), LABELS._replace(model="100% gpt", destination='a\\b"c\nd'))
        metrics.message("request_body", number / 1000)
    return metrics


def test_as_the_library_writes_it() -> None:
    """When the library has read the text, what it writes is the same, but for the suffix that it gives to counters."""
    text = full().exposition()
    registry = CollectorRegistry()
    registry.register(Parsed(text))
    suffix = rb"^((?:# (?:HELP|TYPE) )?(?:asm_llm_proxy|extproc)_\w+?)_total(?=[ {])"
    assert re.sub(suffix, rb"\1", generate_latest(registry), flags=re.MULTILINE) == text


def amounts(name: str) -> st.SearchStrategy[float]:
    """Return amounts, among them those just at a bucket's bound."""
    return st.floats(0, 1000) | st.sampled_from([float(bound) for bound in BUCKETS[name].split()])


@given(
    st.lists(
        st.tuples(
            amounts("server_request_duration_seconds"),
            amounts("server_time_to_first_token_seconds"),
            amounts("server_time_per_output_token_seconds"),
            st.integers(0, 10**9) | st.sampled_from([int(bound) for bound in BUCKETS["client_token_usage"].split()]),
            st.floats(0, 1) | st.sampled_from(MESSAGE_BUCKETS),
        )
    )
)
def test_as_the_library_counts(calls: list[tuple[float, float, float, int, float]]) -> None:
    """Every distribution is what the library's histogram shows of the same amounts."""
    metrics, registry = Metrics(), CollectorRegistry()
    disable_created_metrics()  # type: ignore[no-untyped-call]

    def histogram(name: str, text: str, buckets: Sequence[float], **labels: str) -> Histogram:
        return Histogram(name, text, list(labels), buckets=buckets, registry=registry)

    def gen_ai(name: str, **labels: str) -> Callable[[], Histogram]:
        found = histogram(f"gen_ai_{name}", "", list(map(float, BUCKETS[name].split())), **GEN_AI, **labels)
        return lambda: found.labels(**GEN_AI, **labels)

    duration = gen_ai("server_request_duration_seconds", error_type="")
    first = gen_ai("server_time_to_first_token_seconds")
    per = gen_ai("server_time_per_output_token_seconds")
    usage = gen_ai("client_token_usage", gen_ai_token_type="output")
    message = histogram("extproc_message_seconds", "", MESSAGE_BUCKETS, phase="request_body")
    for seconds, to_first, per_token, tokens, answered in calls:
        record = ended(Usage(output_tokens=tokens), first_token=to_first, per_token=per_token)
        metrics.record(record._replace(duration=seconds), LABELS)
        metrics.message("request_body", answered)
        for theirs, amount in ((duration, seconds), (first, to_first), (per, per_token), (usage, tokens)):
            theirs().observe(amount)
        message.labels("request_body").observe(answered)
    expected = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    assert set(expected) <= set(metrics.exposition().decode().splitlines())


def test_promtool() -> None:
    """Promtool finds nothing wrong with the text, but that counters have the names of the contract."""
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=full().exposition(), capture_output=True, check=False
    )
    said = done.stderr.decode().splitlines()
    assert said
    assert [line for line in said if not line.endswith('counter metrics should have "_total" suffix')] == []


def test_read_while_it_counts() -> None:
    """While one thread counts, another can make the text: what it shows never goes back, and in the end is all."""
    metrics = Metrics()
    number = 2000

    def count() -> None:
        for model in map(str, range(number)):
            metrics.record(ended(Usage(1, 1, 2)), LABELS._replace(model=model))

    def shown() -> int:
        return len(re.findall(rb"^asm_llm_proxy_requests{.*} 1.0$", metrics.exposition(), re.MULTILINE))

    with ThreadPoolExecutor() as threads:
        counting = threads.submit(count)
        seen = [shown()]
        while not counting.done():
            seen.append(shown())
        counting.result()
    assert seen == sorted(seen)
    assert shown() == number
