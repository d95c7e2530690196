"""The dynamic metadata that Envoy is given: flat, bounded, and with no key for what is not known."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from extproc.core.facts import Facts, UsageStatus
from extproc.labels import clean
from extproc.wire.replies import Metadata, encoded

# Most calls of a mesh are to a few models.
_REMEMBERED = 1024


class _Names(NamedTuple):
    """What is known before the answer: the same from call to call."""

    provider: str
    api: str
    requested_model: str | None
    response_model: str | None
    streaming: bool | None


def added(namespace: str, facts: Facts, model_tag: str) -> bytes:
    """Return what is added to a reply to publish the facts."""
    if facts.usage_status is UsageStatus.MISSING and facts.time_to_first_token is None:
        names = _Names(facts.provider, facts.api, facts.requested_model, facts.response_model, facts.streaming)
        return _before_the_answer(namespace, names, model_tag)
    return encoded(namespace, metadata(facts, model_tag))


@lru_cache(_REMEMBERED)
def _before_the_answer(namespace: str, names: _Names, model_tag: str) -> bytes:
    return encoded(namespace, metadata(Facts(operation="", **names._asdict()), model_tag))


def metadata(facts: Facts, model_tag: str) -> Metadata:
    """Return the facts under the names of the contract; times in milliseconds."""
    usage = facts.usage
    known: dict[str, str | float | None] = {
        "request_model": facts.request_model and clean(facts.request_model),
        "response_model": facts.response_model and clean(facts.response_model),
        "model_tag": model_tag,
        "request_prompt_tokens": usage.input_tokens,
        "request_completion_tokens": usage.output_tokens,
        "request_total_tokens": usage.total_tokens,
        "cached_prompt_tokens": usage.cached_input_tokens,
        "cache_creation_prompt_tokens": usage.cache_creation_input_tokens,
        "reasoning_completion_tokens": usage.reasoning_output_tokens,
        "provider": facts.provider,
        "api": facts.api,
        "streaming": facts.streaming,
        "usage": facts.usage_status,
        "time_to_first_token_ms": _milliseconds(facts.time_to_first_token),
        "time_per_output_token_ms": _milliseconds(facts.time_per_output_token),
    }
    return {key: value for key, value in known.items() if value is not None}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
