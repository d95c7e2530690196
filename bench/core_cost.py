"""What the core costs per exchange: `python bench/core_cost.py`.

Bodies of several sizes and streams of several lengths, each in chunks as Envoy sends them. CPU is the best of several
runs, and its ratio to the size of the body shows whether the cost is linear. Memory is what the exchange holds at most
beyond the chunk that it is given.
"""

from __future__ import annotations

import gzip
import json
import math
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from extproc import formats
from extproc.core.exchange import Exchange, Limits

CHUNK = 64 * 1024
RUNS = 5
LEAST_SECONDS = 0.05

USAGE = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}


class Case(NamedTuple):
    """A request and a response."""

    name: str
    request: bytes
    response: bytes
    encoding: str = ""
    sse: bool = False
    chunk: int = CHUNK


def dumps(value: object) -> bytes:
    """Return `value` as servers write it."""
    return json.dumps(value).encode()


def asked(size: int) -> bytes:
    """Return a request with a prompt of so many bytes, and the model behind it."""
    return dumps({"messages": [{"role": "user", "content": "some words\n" * (size // 12)}], "model": "gpt-4o"})


def answered(size: int) -> bytes:
    """Return vectors of so many bytes, and the counts behind them."""
    count = max(1, size // 14000)
    # No two numbers are alike, as in real ones: what compresses to a hundredth is taken for a bomb.
    vectors = ([round(math.sin(number * 1000 + n), 10) for n in range(1000)] for number in range(count))
    return dumps({"data": [{"embedding": vector} for vector in vectors], "model": "gpt-4o", "usage": USAGE})


def streamed(events: int) -> bytes:
    """Return a stream of so many events, and the counts in the last."""
    delta = {"id": "c", "model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "word "}}], "usage": None}
    last = {"model": "gpt-4o", "choices": [], "usage": USAGE}
    return b"".join(b"data: " + dumps(each) + b"\n\n" for each in [delta] * events + [last]) + b"data: [DONE]\n\n"


def cases() -> list[Case]:
    """Return what is measured."""
    small = asked(100)
    event = len(streamed(2)) - len(streamed(1))
    return [
        Case("small request and answer", small, answered(100)[:0] + dumps({"model": "m", "usage": USAGE})),
        *(Case(f"request of {n} MB", asked(n << 20), dumps({"usage": USAGE})) for n in (1, 5, 20)),
        *(Case(f"answer of {n} MB", small, answered(n << 20)) for n in (1, 5, 20)),
        *(Case(f"answer of {n} MB, gzip", small, gzip.compress(answered(n << 20), 1), "gzip") for n in (1, 5, 20)),
        *(Case(f"stream of {n} events", small, streamed(n), sse=True, chunk=event) for n in (100, 1000, 10000)),
    ]


def run(case: Case) -> Exchange:
    """Let an exchange go by."""
    api = formats.find("POST", "/v1/chat/completions")
    if api is None:
        raise LookupError("no format claims the request")
    exchange = Exchange(api, {"content-type": "application/json"}, 0.0, Limits())
    for start in range(0, len(case.request), CHUNK):
        exchange.request_body(case.request[start : start + CHUNK])
    exchange.request_end()
    content_type = "text/event-stream" if case.sse else "application/json"
    exchange.response_headers({":status": "200", "content-type": content_type, "content-encoding": case.encoding})
    for start in range(0, len(case.response), case.chunk):
        exchange.response_body(case.response[start : start + case.chunk], 1.0)
    exchange.response_end(2.0)
    exchange.finish(3.0)
    return exchange


def cpu(work: Callable[[], object]) -> float:
    """Return the seconds of CPU that it takes at best."""
    best, spent = float("inf"), 0.0
    for _ in range(RUNS):
        number, start = 0, time.process_time()
        while (spent := time.process_time() - start) < LEAST_SECONDS:
            work()
            number += 1
        best = min(best, spent / number)
    return best


def memory(work: Callable[[], object]) -> int:
    """Return the bytes that it holds at most."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - before


def main() -> None:
    """Print the table."""
    print("| exchange | bytes, decoded | CPU, ms | CPU, ms per MB | memory, KiB |")
    print("|---|---|---|---|---|")
    for case in cases():
        if run(case).facts.usage.input_tokens != USAGE["prompt_tokens"]:
            raise ValueError(f"{case.name}: the counts are not found")
        size = len(case.request) + len(gzip.decompress(case.response) if case.encoding else case.response)
        milliseconds = cpu(partial(run, case)) * 1000
        held = memory(partial(run, case)) / 1024
        print(f"| {case.name} | {size:,} | {milliseconds:.3g} | {milliseconds / size * 2**20:.3g} | {held:.0f} |")


if __name__ == "__main__":
    main()
