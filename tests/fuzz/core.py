"""A coverage-guided fuzzer for the core: `python tests/fuzz/core.py [-runs=N] [CORPUS ...]`.

An input chooses an API, what the headers say and how the bodies are cut; the rest of it are the bodies. No input may
make the core raise, and what it says must hold together. The options are libFuzzer's
(https://llvm.org/docs/LibFuzzer.html#options), the engine is Atheris (https://github.com/google/atheris).
"""

from __future__ import annotations

import sys
from itertools import pairwise

import atheris

with atheris.instrument_imports(include=["extproc.core", "extproc.formats"]):
    from extproc.core.exchange import Exchange, Limits
    from extproc.formats import FORMATS
    from extproc.formats._detected import detected

APIS = (*FORMATS, detected(["models.test"]))
ENCODINGS = ("", "gzip", "deflate", "br", "zstd", "gzip, br", "unknown")
CONTENT_TYPES = (
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
    "multipart/form-data; boundary=x",
    "audio/mpeg",
    "",
)
LIMITS = Limits(document=2048, decoded=65536)
STATUSES = ("200", "429", "")


def exchange(data: bytes) -> None:
    """Let one exchange go by, as the input has it, and look at what is said of it."""
    chosen = atheris.FuzzedDataProvider(data)
    api = APIS[chosen.ConsumeIntInRange(0, len(APIS) - 1)]
    headers = {
        "content-type": chosen.PickValueInList(list(CONTENT_TYPES)),
        "content-encoding": chosen.PickValueInList(list(ENCODINGS)),
    }
    answer = {**headers, ":status": chosen.PickValueInList(list(STATUSES))}
    answer["content-type"] = chosen.PickValueInList(list(CONTENT_TYPES))
    ends = chosen.ConsumeBool()
    places = sorted(chosen.ConsumeFloatInRange(0, 1) for _ in range(chosen.ConsumeIntInRange(0, 8)))
    body = chosen.ConsumeBytes(chosen.remaining_bytes())
    cuts = [0, *(int(place * len(body)) for place in places), len(body)]
    seen = Exchange(api, headers, 0.0, LIMITS)
    seen.request_body(body)
    seen.request_end()
    seen.response_headers(answer)
    revision = seen.revision
    for start, end in pairwise(cuts):
        seen.response_body(body[start:end], 1.0)
        if seen.revision < revision:
            raise AssertionError("the revision went down")
        revision = seen.revision
    if ends:
        seen.response_end(2.0)
    record = seen.finish(3.0)
    if record is None or seen.finish(4.0) is not None:
        raise AssertionError("an exchange is recorded once")
    usage = record.facts.usage
    for count in (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.cached_input_tokens):
        if count is not None and count < 0:
            raise AssertionError("a count is negative")


if __name__ == "__main__":
    atheris.Setup(sys.argv, exchange)
    atheris.Fuzz()
