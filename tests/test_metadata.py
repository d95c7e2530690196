"""The dynamic metadata."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from extproc.core.facts import Facts, Usage, UsageStatus
from extproc.labels import MAX_BYTES
from extproc.metadata import Publication, metadata
from extproc.wire.replies import with_metadata
from tests.wire.messages import metadata_of


def test_everything() -> None:
    """All facts are published under the names of the contract, as strings, numbers and booleans."""
    facts = Facts(
        "openai",
        "chat_completions",
        "chat",
        requested_model="gpt-4",
        response_model="gpt-4-0613",
        usage=Usage(10, 20, 31, 4, 5, 6),
        usage_status=UsageStatus.PARTIAL,
        streaming=True,
        time_to_first_token=0.12345678,
        time_per_output_token=0.05,
    )
    assert metadata(facts, "other") == {
        "request_model": "gpt-4",
        "response_model": "gpt-4-0613",
        "model_tag": "other",
        "request_prompt_tokens": 10,
        "request_completion_tokens": 20,
        "request_total_tokens": 31,
        "cached_prompt_tokens": 4,
        "cache_creation_prompt_tokens": 5,
        "reasoning_completion_tokens": 6,
        "provider": "openai",
        "api": "chat_completions",
        "streaming": True,
        "usage": "partial",
        "time_to_first_token_ms": 123.457,
        "time_per_output_token_ms": 50.0,
    }


def test_nothing() -> None:
    """What is not known has no key, but for the tag: series need a name for it."""
    assert metadata(Facts("openai", "embeddings", "embeddings"), "unknown") == {
        "model_tag": "unknown",
        "provider": "openai",
        "api": "embeddings",
        "usage": "missing",
    }


def test_zero_is_known() -> None:
    """A count, a time and an answer of 0 are published."""
    facts = Facts("o", "c", "chat", usage=Usage(0, 0, 0), streaming=False, time_to_first_token=0.0)
    published = metadata(facts, "m")
    assert published["request_prompt_tokens"] == published["request_total_tokens"] == 0
    assert published["streaming"] is False
    assert published["time_to_first_token_ms"] == 0


def test_model_of_the_response() -> None:
    """Where the request names no model, the model is the response's."""
    published = metadata(Facts("o", "c", "chat", response_model="m-1"), "m-1")
    assert published["request_model"] == published["response_model"] == "m-1"


def test_models_are_cleaned() -> None:
    """Models come from outside: they are bounded and cannot break a log line."""
    published = metadata(Facts("o", "c", "chat", requested_model='a\n"b', response_model="x" * 1000), "m")
    assert published["request_model"] == "a__b"
    assert published["response_model"] == "x" * MAX_BYTES


MODELS = st.none() | st.sampled_from(("a", "b", 'c"'))
COUNTS = st.none() | st.integers(0, 3)
FACTS = st.builds(
    Facts,
    provider=st.just("openai"),
    api=st.just("chat_completions"),
    operation=st.just("chat"),
    requested_model=MODELS,
    response_model=MODELS,
    usage_status=st.sampled_from(UsageStatus),
    usage=st.tuples(*[COUNTS] * 6).map(Usage._make),
    streaming=st.none() | st.booleans(),
    time_to_first_token=st.none() | st.just(0.5),
)


@given(st.lists(st.tuples(FACTS, st.sampled_from(("a", "other"))), min_size=1))
def test_publication(told: list[tuple[Facts, str]]) -> None:
    """Each fact is told once, and again when it changes: what Envoy has is what is known."""
    publication = Publication()
    before: dict[str, object] = {}
    envoys: dict[str, object] = {}
    for facts, tag in told:
        known = metadata(facts, tag)
        news = metadata_of(with_metadata(b"", "asm.llmproxy", publication.news(facts, tag)))
        assert news == {key: value for key, value in known.items() if before.get(key) != value}
        before = dict(known)
        envoys |= news
        assert {key: envoys[key] for key in known} == known
