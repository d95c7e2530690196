"""What is known about one call to a model.

Rule 1: absent is not zero. A count nobody reported is `None`.
Rule 2: the cached, cache-creation and reasoning counts are parts of the input and output counts, never added to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Gap(StrEnum):
    """Why something is not known. Counted, never raised."""

    NOT_LLM = "not_llm"
    """No format claims the request."""
    NO_USAGE = "no_usage"
    """A complete, successful response without token counts."""
    TRUNCATED = "truncated"
    """A body that ended in the middle of its encoding or its last document."""
    UNPARSABLE = "unparsable"
    """A body, or an event of one, that is not what its format says."""
    TOO_LARGE = "too_large"
    """An event over the size limit, or a body that inflates beyond all measure."""
    UNKNOWN_ENCODING = "unknown_encoding"
    """A Content-Encoding that cannot be decoded."""


class UsageStatus(StrEnum):
    """How far the token counts can be trusted."""

    REPORTED = "reported"
    """The provider's final counts."""
    PARTIAL = "partial"
    """Running counts of a stream that has not ended, or ended early."""
    MISSING = "missing"
    """The provider has reported no counts."""


class Outcome(StrEnum):
    """How an exchange ended."""

    COMPLETE = "complete"
    ABORTED = "aborted"
    """Before its response did: the client or the upstream went away."""
    ERROR = "error"
    """With an error status, or with an error in place of an answer."""


class Usage(NamedTuple):
    """Token counts as published: numbers of tokens, or `None` where nobody reported any."""

    input_tokens: int | None = None
    """All input, cached tokens included."""
    output_tokens: int | None = None
    """All output, reasoning included."""
    total_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None


_NOTHING = Usage()


@dataclass(slots=True)
class Facts:
    """What is known so far about one exchange; grows while its bytes go by."""

    provider: str
    api: str
    operation: str
    requested_model: str | None = None
    """As the request names it."""
    response_model: str | None = None
    """As the provider reports it."""
    usage: Usage = _NOTHING
    usage_status: UsageStatus = UsageStatus.MISSING
    streaming: bool | None = None
    """Whether the response is a stream of events; `None` before it began."""
    time_to_first_token: float | None = None
    """Seconds from the request's headers to the first content, reasoning or tool event of a stream."""
    time_per_output_token: float | None = None
    """Seconds per token after the first one, known when a stream has ended."""

    @property
    def request_model(self) -> str | None:
        """The model used for the call: the request's, else the response's."""
        return self.requested_model or self.response_model


class Record(NamedTuple):
    """One exchange, ended: what is counted, once."""

    facts: Facts
    outcome: Outcome
    status: int
    """HTTP status of the response; 0 if there was none."""
    duration: float
    """Seconds from the request's headers to the end."""
