"""The dynamic metadata that Envoy is given: flat, bounded, and with no key for what is not known."""

from __future__ import annotations

from functools import lru_cache

from extproc.core.facts import Facts
from extproc.labels import clean
from extproc.wire.replies import Metadata, encoded, number, number_of

# Most calls of a mesh are to a few models. Names are at most 128 bytes long.
_REMEMBERED = 1024

_Names = tuple[str | bool | None, ...]
_Numbers = tuple[float | None, ...]

# The keys of the contract: of what is alike from call to call, and of what is not.
_NAMES = ("request_model", "response_model", "model_tag", "provider", "api", "streaming", "usage")
_NUMBERS = (
    "request_prompt_tokens",
    "request_completion_tokens",
    "request_total_tokens",
    "cached_prompt_tokens",
    "cache_creation_prompt_tokens",
    "reasoning_completion_tokens",
    "time_to_first_token_ms",
    "time_per_output_token_ms",
)
_BEFORE_NUMBERS = tuple(map(number_of, _NUMBERS))
_NO_NAMES: _Names = (None,) * len(_NAMES)
_NO_NUMBERS: _Numbers = (None,) * len(_NUMBERS)


class Publication:
    """What Envoy has been told of an exchange.

    Envoy merges the keys of a namespace one by one, so each fact is told once, and again when it changes.
    """

    __slots__ = ("_names", "_numbers")

    def __init__(self) -> None:
        self._names = _NO_NAMES
        self._numbers = _NO_NUMBERS

    def news(self, facts: Facts, model_tag: str) -> bytes:
        """Return the entries that Envoy does not have yet."""
        names, numbers = _names(facts, model_tag), _numbers(facts)
        entries = b""
        if names != self._names:
            entries = _changed(self._names, names)
            self._names = names
        if numbers != self._numbers:
            for key, value, before in zip(_BEFORE_NUMBERS, numbers, self._numbers, strict=True):
                if value is not None and value != before:
                    entries += key + number(value)
            self._numbers = numbers
        return entries


@lru_cache(_REMEMBERED)
def _changed(before: _Names, names: _Names) -> bytes:
    changed = zip(_NAMES, names, before, strict=True)
    return encoded({key: name for key, name, old in changed if name is not None and name != old})


def metadata(facts: Facts, model_tag: str) -> Metadata:
    """Return the facts under the names of the contract; times in milliseconds."""
    names = zip(_NAMES, _names(facts, model_tag), strict=True)
    numbers = zip(_NUMBERS, _numbers(facts), strict=True)
    return {key: value for key, value in (*names, *numbers) if value is not None}


def _names(facts: Facts, model_tag: str) -> _Names:
    """Return the values of `_NAMES`."""
    asked, answered = facts.request_model, facts.response_model
    return (
        asked and clean(asked),
        answered and clean(answered),
        model_tag,
        facts.provider,
        facts.api,
        facts.streaming,
        facts.usage_status,
    )


def _numbers(facts: Facts) -> _Numbers:
    """Return the values of `_NUMBERS`, of which the first are in the order of `Usage`."""
    return (*facts.usage, _milliseconds(facts.time_to_first_token), _milliseconds(facts.time_per_output_token))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
