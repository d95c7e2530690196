"""Where an exchange spends its time in the server: `python bench/exchange_cost.py`.

The messages of a call go through a stream in this process, without transport, and each is timed. What the client's
headers are matters: Envoy forwards few of them as in envoy/envoy.yaml, or all, which then are never twice the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import TypeVar

from bench.loads import HOST, PATH
from extproc.metrics import Metrics
from extproc.serve import observer
from extproc.settings import Settings
from extproc.stream import Stream
from extproc.wanted import WORKLOAD, wanted_headers
from extproc.wire.ext_proc_pb2 import HeaderMap, HeaderValue, HttpBody, HttpHeaders, ProcessingRequest

RUNS = 5
EXCHANGES = 2_000
EVENTS = 50

_NUMBERS = count()
_ASKED = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello there"}]}).encode()
_USAGE = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
_ANSWERED = json.dumps({"model": "gpt-4o", "choices": [{"message": {"content": "Hi" * 100}}], "usage": _USAGE}).encode()
_EVENT = {"model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}

Messages = list[tuple[str, bytes]]
_T = TypeVar("_T")


def headers(values: dict[str, str], *, forward_all: bool) -> HttpHeaders:
    """Return headers as Envoy sends them."""
    values |= {f"x-filler-{number}": "some value of a header" for number in range(8)}
    values["x-request-id"] = str(next(_NUMBERS))
    shown = values.items() if forward_all else [item for item in values.items() if item[0] in wanted_headers()]
    return HttpHeaders(
        headers=HeaderMap(headers=[HeaderValue(key=key, raw_value=value.encode()) for key, value in shown])
    )


def call(
    answer: list[bytes], content_type: str, *, forward_all: bool, path: str = PATH, model: str = "gpt-4o"
) -> Messages:
    """Return the messages of a call, each with its name."""
    body = _ASKED.replace(b"gpt-4o", model.encode())
    asked = {":method": "POST", ":path": path, ":authority": HOST, "content-type": "application/json"}
    begin = ProcessingRequest(request_headers=headers(asked, forward_all=forward_all))
    fields = begin.attributes["envoy.filters.http.ext_proc"].fields
    for name, value in zip(WORKLOAD, ("sleep", "default"), strict=True):
        fields[name].string_value = value
    answered = headers({":status": "200", "content-type": content_type}, forward_all=forward_all)
    messages = [
        ("request headers", begin),
        ("request body", ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=True))),
        ("response headers", ProcessingRequest(response_headers=answered)),
    ]
    *others, last = answer
    messages += [("event", ProcessingRequest(response_body=HttpBody(body=data))) for data in others]
    messages.append(("end of the answer", ProcessingRequest(response_body=HttpBody(body=last, end_of_stream=True))))
    return [(name, message.SerializeToString()) for name, message in messages]


def events() -> list[bytes]:
    """Return a stream."""
    last = b"data: " + json.dumps({"choices": [], "usage": _USAGE}).encode() + b"\n\ndata: [DONE]\n\n"
    return [b"data: " + json.dumps(_EVENT).encode() + b"\n\n"] * EVENTS + [last]


def timed(calls: list[Messages]) -> dict[str, float]:
    """Return the microseconds that a message of each kind takes."""
    shared = observer(Settings(), Metrics())
    spent: dict[str, float] = {}
    number: dict[str, int] = {}

    def take(name: str, work: Callable[[], _T]) -> _T:
        start = time.perf_counter()
        done = work()
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
        number[name] = number.get(name, 0) + 1
        return done

    for messages in calls:
        stream = take("begin", lambda: Stream(shared, {}))
        for name, message in messages:
            take(name, partial(stream.receive, message))
        take("close", stream.close)
    return {name: spent[name] / number[name] * 1e6 for name in spent}


def rows() -> Iterator[tuple[str, dict[str, float]]]:
    """Yield what is measured, with the best of several runs for each kind of message."""
    for name, answer, content_type, forward_all in (
        ("JSON", [_ANSWERED], "application/json", False),
        ("JSON, all headers forwarded", [_ANSWERED], "application/json", True),
        ("stream", events(), "text/event-stream", False),
    ):
        calls = [call(answer, content_type, forward_all=forward_all) for _ in range(EXCHANGES // len(answer))]
        runs = [timed(calls) for _ in range(RUNS)]
        yield name, {kind: min(run[kind] for run in runs) for kind in runs[0]}


def main() -> None:
    """Print the tables."""
    for name, found in rows():
        print(f"{name}: {sum(found.values()):.1f} us{', with one event' if 'event' in found else ''}")
        for kind, microseconds in found.items():
            print(f"  {kind:20}{microseconds:6.1f}")


if __name__ == "__main__":
    main()
