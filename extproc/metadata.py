"""The dynamic metadata that Envoy is given: flat, bounded, and with no key for what is not known."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from extproc.core.facts import Facts, Usage
from extproc.labels import clean
from extproc.wire.replies import Metadata, encoded, number, number_of

# Most calls of a mesh are to a few models. Names are at most 128 bytes long.
_REMEMBERED = 1024


class _Names(NamedTuple):
    """What is the same from call to call, under the names of the contract."""

    request_model: str | None = None
    response_model: str | None = None
    model_tag: str | None = None
    provider: str | None = None
    api: str | None = None
    streaming: bool | None = None
    usage: str | None = None


class _Numbers(NamedTuple):
    """What is not."""

    request_prompt_tokens: float | None = None
    request_completion_tokens: float | None = None
    request_total_tokens: float | None = None
    cached_prompt_tokens: float | None = None
    cache_creation_prompt_tokens: float | None = None
    reasoning_completion_tokens: float | None = None
    time_to_first_token_ms: float | None = None
    time_per_output_token_ms: float | None = None


assert len(Usage._fields) + 2 == len(_Numbers._fields)  # noqa: S101 - in the same order
_NUMBERS = tuple(map(number_of, _Numbers._fields))


class Publication:
    """What Envoy has been told of an exchange.

    Envoy merges the keys of a namespace one by one, so each fact is told once, and again when it changes.
    """

    __slots__ = ("_names", "_numbers")

    def __init__(self) -> None:
        self._names = _Names()
        self._numbers = _Numbers()

    def news(self, facts: Facts, model_tag: str) -> bytes:
        """Return the entries that Envoy does not have yet."""
        names, numbers = _names(facts, model_tag), _numbers(facts)
        entries = b""
        if names != self._names:
            entries = _changed(self._names, names)
            self._names = names
        if numbers != self._numbers:
            entries += b"".join(
                key + number(value)
                for key, value, before in zip(_NUMBERS, numbers, self._numbers, strict=True)
                if value is not None and value != before
            )
            self._numbers = numbers
        return entries


@lru_cache(_REMEMBERED)
def _changed(before: _Names, names: _Names) -> bytes:
    known = before._asdict()
    return encoded({key: value for key, value in names._asdict().items() if value is not None and value != known[key]})


def metadata(facts: Facts, model_tag: str) -> Metadata:
    """Return the facts under the names of the contract; times in milliseconds."""
    known = _names(facts, model_tag)._asdict() | _numbers(facts)._asdict()
    return {key: value for key, value in known.items() if value is not None}


def _names(facts: Facts, model_tag: str) -> _Names:
    request_model, response_model = facts.request_model, facts.response_model
    return _Names(
        request_model and clean(request_model),
        response_model and clean(response_model),
        model_tag,
        facts.provider,
        facts.api,
        facts.streaming,
        facts.usage_status,
    )


def _numbers(facts: Facts) -> _Numbers:
    return _Numbers(*facts.usage, _milliseconds(facts.time_to_first_token), _milliseconds(facts.time_per_output_token))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
