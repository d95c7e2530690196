"""What Cohere's APIs have in common.

They report `tokens`, which the model took and made, and `billed_units`, which leave out what Cohere itself has put into
the prompt: 69 and 7 input tokens in one recorded answer. `tokens` is what others call usage, and what the cached ones
are a part of: an answer has 2928 of them cached with 2935 input tokens and 2406 billed ones. Only where there are no
`tokens` (embeddings) do the billed units count. Numbers may be floats. No response names its model
(https://docs.cohere.com/reference/chat).
"""

from __future__ import annotations

from extproc.core.format import Places, Sign, Sum

PROVIDER = "cohere"


def usage(*reports: str) -> dict[str, Sum]:
    """Return where the counts are; `reports` are the places of the object that has them."""
    return {
        "input_tokens": (_either(reports, "input_tokens"),),
        "output_tokens": (_either(reports, "output_tokens"),),
        "cached_input_tokens": (tuple(f"{report}.cached_tokens" for report in reports),),
    }


def failed(place: str) -> tuple[Sign, ...]:
    """Return the reasons to finish that are errors; `place` is where the reason is.

    A context that was too long (ERROR_LIMIT) is as any other end for want of room, and what the user cancelled is none
    (https://docs.cohere.com/v1/reference/chat, https://docs.cohere.com/reference/chat).
    """
    return tuple((place, reason) for reason in ("ERROR", "ERROR_TOXIC", "TIMEOUT"))


def _either(reports: Places, name: str) -> Places:
    return tuple(f"{report}.{kind}.{name}" for kind in ("tokens", "billed_units") for report in reports)
