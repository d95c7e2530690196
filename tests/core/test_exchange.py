"""Exchanges: from the bytes of a call to its facts, in whatever order and state they come."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.body import DOCUMENT, WORK
from extproc.core.exchange import Exchange, Headers, Limits
from extproc.core.facts import Facts, Gap, Outcome, Record, Usage, UsageStatus
from extproc.core.format import Format

API = Format(
    provider="acme",
    api="talk",
    operation="chat",
    path="/talk",
    usage={
        "input_tokens": (("usage.input",), ("usage.cached",)),
        "output_tokens": (("usage.output",),),
        "cached_input_tokens": (("usage.cached",),),
    },
    content=("choices[].text", "choices[].reasoning", "choices[].calls"),
    running="choices[]",
    finish=("choices[].end",),
    done=b"[DONE]",
)
# Neither streams nor an event that ends one.
PLAIN = Format(
    provider="acme", api="embed", operation="embeddings", path="/embed", usage={"input_tokens": (("usage.input",),)}
)

OK: Headers = {":status": "200", "content-type": "application/json"}
SSE: Headers = {":status": "200", "content-type": "text/event-stream; charset=utf-8"}

ROLE = {"model": "m-1", "choices": [{"role": "assistant", "text": ""}]}
HELLO = {"model": "m-1", "choices": [{"text": "hello"}]}
RUNNING = {"model": "m-1", "choices": [{"text": "!"}], "usage": {"input": 3, "output": 2}}
END = {"model": "m-1", "choices": [{"text": "", "end": "stop"}]}
FINAL = {"model": "m-1", "choices": [], "usage": {"input": 3, "cached": 4, "output": 11}}
ERROR = {"error": {"message": "overloaded"}}
DONE = b"data: [DONE]\n\n"


def sse(*events: object) -> bytes:
    """Write events as a stream."""
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def make(request: object = None, headers: Headers | None = None, api: Format = API) -> Exchange:
    """Make an exchange that began at 100 seconds, with the request's body if there is one."""
    exchange = Exchange(api, headers or {}, 100.0, Limits())
    if request is not None:
        exchange.request_body(json.dumps(request).encode())
        exchange.request_end()
    return exchange


def answer(exchange: Exchange, headers: Headers, body: bytes) -> Exchange:
    """Let the whole response go by."""
    exchange.response_headers(headers)
    exchange.response_body(body, 101.0)
    exchange.response_end(102.0)
    return exchange


def finish(exchange: Exchange) -> Record:
    """End an exchange for the first time."""
    record = exchange.finish(110.0)
    assert record is not None
    return record


def test_before_anything() -> None:
    """An exchange knows at once whose API it is, and that is published."""
    exchange = make()
    assert exchange.facts == Facts("acme", "talk", "chat")
    assert exchange.facts.request_model is None
    assert exchange.revision == 1
    assert not exchange.ended


def test_whole() -> None:
    """A whole answer gives the models and the counts."""
    exchange = answer(make({"model": "m"}), OK, json.dumps(FINAL).encode())
    facts = exchange.facts
    assert (facts.request_model, facts.response_model) == ("m", "m-1")
    assert (facts.usage, facts.usage_status) == (Usage(7, 11, 18, 4), UsageStatus.REPORTED)
    assert facts.streaming is False
    assert facts.time_to_first_token is facts.time_per_output_token is None
    assert finish(exchange) == Record(facts, Outcome.COMPLETE, 200, 2.0)
    assert exchange.gaps == set()


def test_stream() -> None:
    """A stream gives the models, the final counts and its times."""
    exchange = make({"model": "m"})
    exchange.response_headers(SSE)
    exchange.response_body(sse(ROLE), 101.0)
    exchange.response_body(sse(HELLO), 103.0)
    exchange.response_body(sse(RUNNING), 104.0)
    exchange.response_body(sse(FINAL), 105.0)
    exchange.response_body(DONE, 108.0)
    exchange.response_end(109.0)
    facts = exchange.facts
    assert (facts.request_model, facts.response_model) == ("m", "m-1")
    assert (facts.usage, facts.usage_status) == (Usage(7, 11, 18, 4), UsageStatus.REPORTED)
    assert facts.streaming is True
    assert facts.time_to_first_token == 3.0
    assert facts.time_per_output_token == 0.5, "ten more tokens in five seconds"
    assert finish(exchange) == Record(facts, Outcome.COMPLETE, 200, 8.0)
    assert exchange.gaps == set()


def test_recorded_once() -> None:
    """An exchange is recorded once, however often and from wherever it is ended."""
    exchange = answer(make({"model": "m"}), OK, json.dumps(FINAL).encode())
    finish(exchange)
    assert exchange.finish(111.0) is None
    exchange.response_end(112.0)
    assert exchange.finish(113.0) is None


ERROR_BODY = json.dumps(ERROR).encode()
WHOLE_BODY = json.dumps(FINAL).encode()
STREAM_BODY = sse(HELLO, FINAL)

OUTCOMES = {
    "whole": (OK, WHOLE_BODY, True, Outcome.COMPLETE),
    "whole, aborted": (OK, WHOLE_BODY, False, Outcome.ABORTED),
    "nothing": (OK, b"", True, Outcome.COMPLETE),
    "nothing, aborted": (OK, b"", False, Outcome.ABORTED),
    "redirected": ({":status": "302"}, b"", True, Outcome.COMPLETE),
    "error status": ({":status": "429"}, ERROR_BODY, True, Outcome.ERROR),
    "error status, no body": ({":status": "503"}, b"", True, Outcome.ERROR),
    "error status, other body": ({":status": "400"}, b"Bad Request", True, Outcome.ERROR),
    "error status, aborted": ({":status": "500"}, b"", False, Outcome.ERROR),
    "error in a good response": (OK, ERROR_BODY, True, Outcome.ERROR),
    "stream": (SSE, STREAM_BODY, True, Outcome.COMPLETE),
    "stream, done": (SSE, STREAM_BODY + DONE, True, Outcome.COMPLETE),
    "stream, done, aborted": (SSE, STREAM_BODY + DONE, False, Outcome.COMPLETE),
    "stream, over and counted, aborted": (SSE, sse(HELLO, END, FINAL), False, Outcome.COMPLETE),
    "stream, over, aborted": (SSE, sse(HELLO, END), False, Outcome.ABORTED),
    "stream, aborted": (SSE, STREAM_BODY, False, Outcome.ABORTED),
    "stream, error": (SSE, sse(HELLO, ERROR), True, Outcome.ERROR),
    "stream, error, done": (SSE, sse(HELLO, ERROR) + DONE, True, Outcome.ERROR),
    "stream, error, aborted": (SSE, sse(HELLO, ERROR), False, Outcome.ERROR),
    "stream of no error": (SSE, sse({**HELLO, "error": None}), True, Outcome.COMPLETE),
}


@pytest.mark.parametrize(("headers", "body", "ends", "outcome"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_outcome(headers: Headers, body: bytes, outcome: Outcome, *, ends: bool) -> None:
    """An error is an error also in a good response, an answer is complete when it says so or ends, else aborted."""
    exchange = make({"model": "m"})
    exchange.response_headers(headers)
    exchange.response_body(body, 101.0)
    if ends:
        exchange.response_end(102.0)
    record = finish(exchange)
    assert record.outcome is outcome
    assert record.facts.request_model == "m", "also of an error one knows what was asked for"
    assert exchange.ended is ends


def test_no_response() -> None:
    """A call that is never answered is aborted, and lasts until that is known."""
    for exchange in (make(), make({"model": "m"})):
        assert finish(exchange) == Record(exchange.facts, Outcome.ABORTED, 0, 10.0)
        assert exchange.gaps == set()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("200", 200),
        ("503", 503),
        ("", 0),
        ("2xx", 0),
        ("-200", 0),
        ("20", 0),
        ("2000", 0),
        ("\u0662\u0660\u0660", 0),
        ("\u00b2\u00b2\u00b2", 0),
        ("200\n", 0),
        ("9" * 5000, 0),
    ],
)
def test_status(status: str, expected: int) -> None:
    """A status is three digits; nothing else is one, and nothing else makes trouble."""
    exchange = make()
    exchange.response_headers({":status": status})
    assert finish(exchange).status == expected


def test_no_usage() -> None:
    """Only a complete answer without counts leaves the gap; the counts are absent, not 0."""
    exchange = answer(make({"model": "m"}), SSE, sse(ROLE, HELLO) + DONE)
    assert exchange.gaps == set()
    record = finish(exchange)
    assert (record.facts.usage, record.facts.usage_status) == (Usage(), UsageStatus.MISSING)
    assert exchange.gaps == {Gap.NO_USAGE}


USAGES = {
    "none": ([HELLO], UsageStatus.MISSING, UsageStatus.MISSING),
    "null": ([{**HELLO, "usage": None}], UsageStatus.MISSING, UsageStatus.MISSING),
    "running": ([HELLO, RUNNING], UsageStatus.PARTIAL, UsageStatus.REPORTED),
    "running, then the end": ([RUNNING, END], UsageStatus.PARTIAL, UsageStatus.REPORTED),
    "with the end": ([HELLO, {**RUNNING, **END}], UsageStatus.REPORTED, UsageStatus.REPORTED),
    "after the end": ([HELLO, END, RUNNING], UsageStatus.REPORTED, UsageStatus.REPORTED),
    "final": ([HELLO, FINAL], UsageStatus.REPORTED, UsageStatus.REPORTED),
    "running, final": ([RUNNING, FINAL], UsageStatus.REPORTED, UsageStatus.REPORTED),
    "final, content": ([FINAL, HELLO], UsageStatus.REPORTED, UsageStatus.REPORTED),
}


@pytest.mark.parametrize(("events", "aborted", "ended"), USAGES.values(), ids=USAGES.keys())
@pytest.mark.parametrize("end", ["done", "end", "both"])
def test_usage_status(events: list[object], aborted: UsageStatus, ended: UsageStatus, end: str) -> None:
    """Running counts are partial until the stream ends; then they are all there is to come."""
    exchange = make()
    exchange.response_headers(SSE)
    exchange.response_body(sse(*events), 101.0)
    assert exchange.facts.usage_status is aborted
    if end in ("done", "both"):
        exchange.response_body(DONE, 102.0)
    if end in ("end", "both"):
        exchange.response_end(103.0)
    assert finish(exchange).facts.usage_status is ended


FIRST_TOKENS = {
    "content": ([ROLE, HELLO, HELLO], 1),
    "reasoning": ([ROLE, {"choices": [{"text": None, "reasoning": "so"}]}, HELLO], 1),
    "tool call": ([ROLE, {"choices": [{"text": None, "calls": [{"name": "f"}]}]}, HELLO], 1),
    "second choice": ([ROLE, {"choices": [{"text": ""}, {"text": "b"}]}], 1),
    "at once": ([HELLO, ROLE], 0),
    "signs of life": ([{}, {"choices": []}, {"choices": None}, ROLE, HELLO], 4),
    "half an emoji": ([ROLE, {"choices": [{"text": "\ud83d"}]}, HELLO], 2),
    "never": ([ROLE, FINAL], None),
}


@pytest.mark.parametrize(("events", "first"), FIRST_TOKENS.values(), ids=FIRST_TOKENS.keys())
def test_time_to_first_token(events: list[object], first: int | None) -> None:
    """The first token is content, reasoning or a tool call; a role is none, and bytes alone are none."""
    exchange = make()
    exchange.response_headers(SSE)
    for number, event in enumerate(events):
        body = sse(event)
        exchange.response_body(body[:-1], 100.5 + number)
        exchange.response_body(body[-1:], 101.0 + number)
    assert exchange.facts.time_to_first_token == (None if first is None else 1.0 + first)


@pytest.mark.parametrize(("output", "expected"), [(None, None), (0, None), (1, None), (2, 4.0), (5, 1.0)])
def test_time_per_output_token(output: int | None, expected: float | None) -> None:
    """The time after the first token is that of all the other tokens; without others there is none."""
    exchange = make()
    exchange.response_headers(SSE)
    exchange.response_body(sse(HELLO), 102.0)
    exchange.response_body(sse({"choices": [], "usage": {"output": output}}), 103.0)
    assert exchange.facts.time_per_output_token is None, "the stream has not ended"
    exchange.response_end(106.0)
    assert exchange.facts.time_per_output_token == expected


def test_nothing_new() -> None:
    """What is reported again is not published again."""
    exchange = make()
    exchange.response_headers(SSE)
    exchange.response_body(sse(RUNNING), 101.0)
    revision = exchange.revision
    exchange.response_body(sse(RUNNING, {**HELLO, "usage": {"input": 3}}), 102.0)
    exchange.response_headers(SSE)
    assert exchange.revision == revision


def test_usage_after_done() -> None:
    """Counts that come after the event that ends a stream count too, and are final."""
    exchange = answer(make(), SSE, DONE + sse(RUNNING))
    assert (exchange.facts.usage.output_tokens, exchange.facts.usage_status) == (2, UsageStatus.REPORTED)


def test_time_per_output_token_without_first() -> None:
    """A stream whose tokens nobody saw has no time per token."""
    exchange = answer(make(), SSE, sse(ROLE, FINAL))
    assert exchange.facts.time_per_output_token is None


CONTENT_TYPES: list[str | None] = [None, "", "text/plain", "application/json", "TEXT/EVENT-STREAM", "text/event-stream"]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("start", [b"", b"\n", b": ping\n\n", b"event: x\n", b"id: 1\n", b"retry: 9\n"])
def test_unlabelled_stream(content_type: str | None, start: bytes) -> None:
    """A stream is known by what it is, whatever Content-Type says."""
    headers = {":status": "200"} if content_type is None else {":status": "200", "content-type": content_type}
    exchange = make()
    exchange.response_headers(headers)
    for byte in start + sse(HELLO, FINAL):
        exchange.response_body(bytes([byte]), 101.0)
    assert exchange.facts.streaming is True
    assert exchange.facts.usage.output_tokens == 11
    assert exchange.facts.time_to_first_token == 1.0


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/json"])
def test_unlabelled_whole(content_type: str) -> None:
    """A document is known by what it is, whatever Content-Type says."""
    exchange = answer(make(), {":status": "200", "content-type": content_type}, b"\r\n " + WHOLE_BODY)
    assert exchange.facts.streaming is False
    assert exchange.facts.usage.output_tokens == 11


@pytest.mark.parametrize(
    "body", [b"data unavailable", b"error", b"internal error", b"request timeout", b": (", b"no", b"<"]
)
def test_error_in_words(body: bytes) -> None:
    """The words of an error are no stream, whatever they begin with."""
    exchange = answer(make({"model": "m"}), {":status": "500", "content-type": "text/plain"}, body)
    assert exchange.facts.streaming is False
    assert exchange.gaps == {Gap.UNPARSABLE}
    assert finish(exchange).outcome is Outcome.ERROR


IN_WORDS = [
    b"data about ids",
    b"WEBVTT\n\n00:00",
    b"1\n00:00:00,000 -->",
    b"d",
    b"retry it",
    b"e: x",
    b"[Music]",
    b"[00:00.00] So",
    b"data\n: x",
]


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", "text/vtt", "text/html", "application/json", ""])
@pytest.mark.parametrize("body", IN_WORDS)
def test_answer_in_words(content_type: str, body: bytes, *, words: bool) -> None:
    """A transcript as plain text or as subtitles reports no usage; it is neither broken JSON nor a stream.

    Where it is not labelled as text, the format must say that there may be one.
    """
    exchange = make({"model": "m"}, api=replace(API, words=words))
    exchange.response_headers({":status": "200", "content-type": content_type})
    for byte in body:
        exchange.response_body(bytes([byte]), 1.0)
    exchange.response_end(2.0)
    assert exchange.facts.streaming is False
    assert finish(exchange).outcome is Outcome.COMPLETE
    as_words = words or content_type.startswith("text/")
    assert exchange.gaps == {Gap.NO_USAGE} if as_words else {Gap.NO_USAGE, Gap.UNPARSABLE}


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
def test_answer_that_may_be_in_words(content_type: str, *, words: bool) -> None:
    """Where answers may be plain text, a document and a stream are still read as such."""
    for body, streaming in ((WHOLE_BODY, False), (STREAM_BODY, True)):
        exchange = answer(make(api=replace(API, words=words)), {**OK, "content-type": content_type}, body)
        assert (exchange.facts.usage.output_tokens, exchange.facts.streaming) == (11, streaming)
        assert exchange.gaps == set()


ERRORS_IN_JSON = [
    b'{"error": {"message": "no"}}',
    b'\n {"error": {"message": "no"}}',
    b'\xef\xbb\xbf{"error": {"message": "no"}}',
    b'{\n  "error": {\n    "message": "no"\n  }\n}\n',
]


@pytest.mark.parametrize("status", ["200", "400", "529"])
@pytest.mark.parametrize("body", ERRORS_IN_JSON)
@pytest.mark.parametrize("label", ["text/event-stream", "application/x-ndjson", "application/json", "text/plain", ""])
@pytest.mark.parametrize("lines", [False, True])
def test_error_in_json(status: str, body: bytes, label: str, *, lines: bool) -> None:
    """Whoever asked for a stream may get an error as one document, with the label of a stream."""
    if status == "200" and label == "application/x-ndjson":
        return  # what is labelled so and is good is read so
    headers = {":status": status, "content-type": label}
    exchange = make({"model": "m"}, api=replace(API, lines=lines))
    exchange.response_headers(headers)
    for byte in body:
        exchange.response_body(bytes([byte]), 101.0)
    exchange.response_end(102.0)
    assert exchange.facts.streaming is False
    assert exchange.gaps == set()
    assert finish(exchange).outcome is Outcome.ERROR


@pytest.mark.parametrize("label", ["text/event-stream", "application/json"])
def test_error_in_an_array(label: str) -> None:
    """Where streams come as arrays, so do their errors, with any label and with a BOM."""
    body = b"\xef\xbb\xbf\n[" + ERROR_BODY + b"]"
    for status, streaming in (("200", True), ("400", False)):
        for cut in range(len(body)):
            exchange = make({"model": "m"}, api=replace(API, array=True))
            exchange.response_headers({":status": status, "content-type": label})
            exchange.response_body(body[:cut], 101.0)
            exchange.response_body(body[cut:], 101.0)
            exchange.response_end(102.0)
            assert exchange.facts.streaming is streaming
            assert exchange.gaps == set()
            assert finish(exchange).outcome is Outcome.ERROR


LINES = replace(API, lines=True, last=(("done", True),))
LINE_LABELS = ["application/x-ndjson", "application/json", "text/plain", "text/event-stream", ""]


@pytest.mark.parametrize("label", LINE_LABELS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", b"\n", b"\xef\xbb\xbf"])
def test_unlabelled_lines(label: str, end: bytes, start: bytes) -> None:
    """A stream of a document a line is one whatever its label, from its first line on."""
    events = ({**HELLO, "done": False}, HELLO, {"usage": {"input": 3, "output": 11}, "done": True})
    exchange = make(api=LINES)
    exchange.response_headers({**OK, "content-type": label})
    for second, event in enumerate(events):
        for byte in (b"" if second else start) + json.dumps(event).encode() + end:
            exchange.response_body(bytes([byte]), 101.0 + second)
    assert exchange.facts.streaming is True
    assert exchange.facts.time_to_first_token == 1.0
    assert (exchange.facts.usage.output_tokens, exchange.facts.usage_status) == (11, UsageStatus.REPORTED)
    exchange.response_end(105.0)
    assert (finish(exchange).outcome, exchange.gaps) == (Outcome.COMPLETE, set())


@pytest.mark.parametrize("label", ["application/json", "text/plain", ""])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("document", [{**FINAL, "done": True}, FINAL, {"done": True}, {"text": "x" * 5000, **FINAL}])
def test_whole_among_lines(label: str, indent: int | None, end: bytes, document: dict[str, object]) -> None:
    """Where streams are documents in lines, a whole answer is one document, on one line or many."""
    body = json.dumps(document, indent=indent).encode() + end
    for cut in (0, 1, 7, 8, len(body) - 1, len(body)):
        exchange = make(api=LINES)
        exchange.response_headers({**OK, "content-type": label})
        exchange.response_body(body[:cut], 101.0)
        exchange.response_body(body[cut:], 102.0)
        exchange.response_end(103.0)
        assert exchange.facts.streaming is False
        assert exchange.facts.usage.output_tokens == (11 if "usage" in document else None)
        assert exchange.gaps == set()


def test_lines_where_there_are_none() -> None:
    """Only formats that stream so are read so: elsewhere the first document is the answer."""
    exchange = answer(make(), OK, json.dumps(HELLO).encode() + b"\n" + WHOLE_BODY)
    assert (exchange.facts.streaming, exchange.facts.usage.output_tokens) == (False, None)


def test_error_status_with_a_stream() -> None:
    """An error that is labelled a stream is read as one."""
    exchange = answer(make(), {**SSE, ":status": "500"}, sse(ERROR))
    assert exchange.facts.streaming is True
    assert exchange.gaps == set()


def test_early_response() -> None:
    """A response that begins before the request has ended is taken for what it is, and so is the request."""
    exchange = make()
    request = json.dumps({"messages": ["hi"], "model": "m"}).encode()
    exchange.request_body(request[:5])
    exchange.response_headers(SSE)
    exchange.response_body(sse(HELLO), 101.0)
    exchange.request_body(request[5:])
    exchange.request_end()
    exchange.response_body(sse(FINAL), 102.0)
    exchange.response_end(103.0)
    facts = finish(exchange).facts
    assert (facts.request_model, facts.response_model, facts.usage.output_tokens) == ("m", "m-1", 11)


FORM: Headers = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + bytes(100_000)

BEGUN: dict[str, tuple[Headers, bytes, str | None]] = {
    "model": ({}, b'{"model": "m", "messages": [{"text": "' + b"x" * 9, "m"),
    "model, after little": ({}, b'{"messages": [{"model": "x"}], "model": "m", "x', "m"),
    "model, of a long one": ({}, b'{"model": "m", "messages": "' + b"x" * (2 << 20), "m"),
    "model, escaped": ({}, b'{"model": "\\u006d", ', "m"),
    "half a model": ({}, b'{"model": "m', None),
    "a model that may go on": ({}, b'{"model": 1', None),
    "no model": ({}, b'{"messages": [{"model": "m"}]', None),
    "no json": ({}, b"model=m", None),
    "nothing": ({}, b"", None),
    "form": (FORM, PART + FILE, "m"),
    "form, half a model": (FORM, PART[:-2], None),
    "compressed": ({"content-encoding": "gzip"}, gzip.compress(b'{"model": "m", "x": 1}')[:-8], "m"),
    "broken": ({"content-encoding": "gzip"}, b"no gzip", None),
}


@pytest.mark.parametrize(("headers", "body", "model"), BEGUN.values(), ids=BEGUN.keys())
@pytest.mark.parametrize("answered", [True, False])
def test_request_that_does_not_end(headers: Headers, body: bytes, model: str | None, *, answered: bool) -> None:
    """Who is answered before the request has ended, or goes away, has asked for the model that was named by then."""
    for size in (len(body) or 1, 1000):
        exchange = make(headers=headers)
        for start in range(0, len(body), size):
            exchange.request_body(body[start : start + size])
        assert exchange.facts.requested_model is None
        gaps = set(exchange.gaps)
        if answered:
            exchange.response_headers({":status": "429"})
            assert exchange.facts.requested_model == model, "and it is published with the answer"
        assert finish(exchange).facts.requested_model == model
        assert exchange.gaps == gaps


def test_request_that_goes_on_after_the_answer_began() -> None:
    """A model that comes after the answer has begun still counts, also one that a beginning cannot tell."""
    for late in (b'"model": "m"}', b'"model": "m", '):
        exchange = make()
        exchange.request_body(b'{"messages": [], ')
        exchange.response_headers(SSE)
        assert exchange.facts.requested_model is None
        exchange.request_body(late)
        assert finish(exchange).facts.requested_model == "m"


def test_model_of_the_response() -> None:
    """A request that names no model is counted under the model of the response."""
    exchange = answer(make({"messages": []}), OK, WHOLE_BODY)
    assert exchange.facts.requested_model is None
    assert exchange.facts.request_model == "m-1"
    assert exchange.gaps == set()


REQUESTS = {
    "nothing": (b"", set()),
    "no json": (b"model=m", {Gap.UNPARSABLE}),
    "an array": (b"[]", {Gap.UNPARSABLE}),
    "cut": (b'{"model": "m"', {Gap.UNPARSABLE}),
    "model of another type": (b'{"model": ["m"]}', set()),
}


@pytest.mark.parametrize(("body", "gaps"), REQUESTS.values(), ids=REQUESTS.keys())
def test_bad_request(body: bytes, gaps: set[Gap]) -> None:
    """A request that cannot be read leaves a gap; the response counts all the same."""
    exchange = make()
    exchange.request_body(body)
    exchange.request_end()
    assert answer(exchange, OK, WHOLE_BODY).gaps == gaps
    assert exchange.facts.usage.output_tokens == 11


RESPONSES = {
    "no json": (OK, b"<html>", {Gap.UNPARSABLE}),
    "cut": (OK, WHOLE_BODY[:-1], {Gap.UNPARSABLE}),
    "event that is no json": (SSE, b"data: hello\n\n" + STREAM_BODY, {Gap.UNPARSABLE}),
    "event that is cut": (SSE, STREAM_BODY + sse(RUNNING)[:-4], {Gap.UNPARSABLE}),
    "event that is empty": (SSE, b"data:\n\n" + STREAM_BODY, set()),
    "unknown encoding": ({**OK, "content-encoding": "zip"}, WHOLE_BODY, {Gap.UNKNOWN_ENCODING}),
    "no gzip": ({**OK, "content-encoding": "gzip"}, WHOLE_BODY, {Gap.UNPARSABLE}),
    "cut gzip": ({**SSE, "content-encoding": "gzip"}, gzip.compress(STREAM_BODY)[:-9], {Gap.TRUNCATED}),
}


@pytest.mark.parametrize(("headers", "body", "gaps"), RESPONSES.values(), ids=RESPONSES.keys())
def test_bad_response(headers: Headers, body: bytes, gaps: set[Gap]) -> None:
    """A response that cannot be read leaves a gap, and what can be read of it counts."""
    exchange = answer(make({"model": "m"}), headers, body)
    assert exchange.gaps == gaps
    streamed = headers["content-type"] == SSE["content-type"]
    assert exchange.facts.usage.output_tokens == (11 if streamed else None)
    assert exchange.facts.request_model == "m"


def test_limits() -> None:
    """What is over the limits leaves a gap and costs the rest nothing."""
    exchange = Exchange(API, {}, 100.0, Limits(document=100, decoded=1000))
    exchange.request_body(b'{"prompt": "' + b"x" * 200 + b'", "model": "m"}')
    exchange.request_end()
    answer(exchange, SSE, sse({"choices": [{"text": "x" * 200}]}, {"usage": {"output": 5}}))
    assert exchange.gaps == {Gap.TOO_LARGE}
    assert (exchange.facts.request_model, exchange.facts.usage.output_tokens) == ("m", 5)

    exchange = Exchange(API, {"content-encoding": "gzip"}, 100.0, Limits(document=100, decoded=1000))
    exchange.request_body(gzip.compress(b'{"model": "m", "prompt": "' + b"x" * 2000 + b'"}'))
    exchange.request_end()
    assert exchange.gaps == {Gap.TOO_LARGE}


EVENTS = WORK // DOCUMENT // 2  # each has two line ends, of which every ten count as one event
FLOODS = {
    "events": (SSE, sse(FINAL) * EVENTS, sse(FINAL) * (2 * EVENTS)),
    "lines without events": (SSE, b"x\n" * (WORK - 20), b"x\r" * (WORK + 1)),
    "documents in lines": (
        {**OK, "content-type": "application/x-ndjson"},
        (json.dumps(FINAL).encode() + b"\n") * EVENTS,
        (json.dumps(FINAL).encode() + b"\n") * (2 * EVENTS),
    ),
}


@pytest.mark.parametrize(("headers", "fits", "does_not"), FLOODS.values(), ids=FLOODS.keys())
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_work_on_a_message(headers: Headers, fits: bytes, does_not: bytes, encoding: str) -> None:
    """A message with more to do than any stream has in one is not read to its end, and nothing after it is read."""
    encode = gzip.compress if encoding == "gzip" else bytes
    last = sse({"usage": {"output": 99}}) if headers is SSE else b'{"usage": {"output": 99}}\n'
    for body, gaps in ((fits, set()), (does_not, {Gap.TOO_LARGE})):
        exchange = make()
        exchange.response_headers({**headers, "content-encoding": encoding})
        for _ in range(2):
            exchange.response_body(encode(body), 101.0)
        exchange.response_body(encode(last), 102.0)
        exchange.response_end(103.0)
        assert exchange.gaps == gaps
        assert (exchange.facts.usage.output_tokens == 99) == (not gaps)


def test_parts_of_a_form() -> None:
    """A form of many parts is work, too."""
    exchange = make(headers=FORM)
    exchange.request_body(PART + b"--b\r\n\r\n\r\n" * WORK)
    exchange.request_end()
    assert exchange.gaps == {Gap.TOO_LARGE}
    assert finish(exchange).facts.requested_model is None


def test_decoded_message() -> None:
    """A message may not decode to more than a limit, and some times its length; the body may."""
    limits = Limits(decoded=10_000, message=1000)
    for size, gaps in ((900, set()), (1800, {Gap.TOO_LARGE})):
        exchange = Exchange(API, {}, 100.0, limits)
        exchange.response_headers({**SSE, "content-encoding": "deflate"})
        compressor = zlib.compressobj()
        for part in (*([b":" + b"x" * size] * 5), b"\n" + sse(FINAL)):
            exchange.response_body(compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH), 101.0)
        exchange.response_body(compressor.flush(), 102.0)
        exchange.response_end(103.0)
        assert exchange.gaps == gaps
        assert exchange.facts.usage.output_tokens == (None if gaps else 11)


def test_plain_format() -> None:
    """A format without streams reads one all the same, and has no times."""
    exchange = answer(make(api=PLAIN), SSE, sse({"model": "m-1"}, {"data": []}, {"usage": {"input": 3}}) + DONE)
    facts = finish(exchange).facts
    assert (facts.response_model, facts.usage.input_tokens) == ("m-1", 3)
    assert facts.usage_status is UsageStatus.REPORTED
    assert facts.time_to_first_token is None
    assert exchange.gaps == set()


@pytest.mark.parametrize("first", [HELLO, {"choices": [{"text": "hello"}]}])
def test_content_is_not_decoded(first: object) -> None:
    """Once the first token is known, events of plain content are not even looked at, be the model named or not."""
    exchange = make()
    exchange.response_headers(SSE)
    exchange.response_body(sse(first) + b"data: {no json\n\n" + sse(FINAL), 101.0)
    assert exchange.gaps == set()
    assert (exchange.facts.response_model, exchange.facts.usage.output_tokens) == ("m-1", 11)


def test_memory() -> None:
    """Bodies of any length take no more memory than the limits allow."""
    exchange = make()
    chunk = b"x" * 20_000
    exchange.request_body(b'{"prompt": "')
    exchange.response_headers(SSE)
    exchange.response_body(b"data: ", 101.0)
    tracemalloc.start()
    try:
        for _ in range(500):
            exchange.request_body(chunk)
            exchange.response_body(chunk, 101.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * Limits().document, "of 20 times that"


# Calls in any order, with bytes that are sometimes almost right.

REQUEST_PARTS = [
    b'{"model": "m"',
    b"}",
    b'{"model": "m"}',
    b" ",
    b"{",
    b'"',
    b"\\",
    b"\xff",
    gzip.compress(b'{"model":1}'),
]
RESPONSE_PARTS = [
    *(sse(event) for event in (ROLE, HELLO, RUNNING, FINAL, ERROR)),
    DONE,
    WHOLE_BODY,
    ERROR_BODY,
    b'data: {"usage": {"output": 1',
    b"data:",
    b"\n",
    b"\r",
    b"}}\n\n",
    b": x\n\n",
    b"\x1f",
    b"\x8b",
    gzip.compress(STREAM_BODY),
    gzip.compress(WHOLE_BODY)[:40],
]
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        ":status": st.sampled_from(["200", "404", "", "x"]) | st.text(),
        "content-type": st.sampled_from(["text/event-stream", "application/json"]) | st.text(),
        "content-encoding": st.sampled_from(["gzip", "identity", "br"]) | st.text(),
    },
)
TIMES = st.floats()

Call = Callable[[Exchange], object]

CALLS: st.SearchStrategy[Call] = st.one_of(
    (st.sampled_from(REQUEST_PARTS) | st.binary()).map(lambda data: lambda exchange: exchange.request_body(data)),
    st.just(lambda exchange: exchange.request_end()),
    HEADERS.map(lambda headers: lambda exchange: exchange.response_headers(headers)),
    st.tuples(st.sampled_from(RESPONSE_PARTS) | st.binary(), TIMES).map(
        lambda given: lambda exchange: exchange.response_body(*given)
    ),
    TIMES.map(lambda now: lambda exchange: exchange.response_end(now)),
    TIMES.map(lambda now: lambda exchange: exchange.finish(now)),
)


@given(headers=HEADERS, calls=st.lists(CALLS, max_size=20), limit=st.sampled_from([0, 20, 1000]))
def test_any_order(headers: Headers, calls: list[Call], limit: int) -> None:
    """No order of calls and no bytes make an exchange raise, publish in vain or be recorded twice."""
    exchange = Exchange(API, headers, 0.0, Limits(document=limit, decoded=limit * 2))
    records = 0
    for call in calls:
        before, revision = deepcopy(exchange.facts), exchange.revision
        result = call(exchange)
        records += isinstance(result, Record)
        assert exchange.revision >= revision
        assert (exchange.revision > revision) == (repr(exchange.facts) != repr(before)), "a NaN is not itself"
        assert not exchange.ended or exchange.facts.usage_status is not UsageStatus.PARTIAL
    assert records <= 1
    assert (exchange.finish(1.0) is None) == (records == 1)


@pytest.mark.parametrize("length", ["", "x", "-1", "1" * 20, "5000"])
def test_other_lengths_end_nothing(length: str) -> None:
    """A Content-Length that is none, or not reached, does not end a response."""
    exchange = make()
    exchange.response_headers({**OK, "content-length": length})
    exchange.response_body(b'{"usage": {"input": 3}}', 101.0)
    assert not exchange.ended


def test_content_length_ends_a_response() -> None:
    """With the last byte that Content-Length promises a response has ended, before anyone says so."""
    body = b'{"model": "m", "usage": {"input": 3}}'
    exchange = make()
    exchange.response_headers({**OK, "content-length": str(len(body))})
    exchange.response_body(body[:-1], 101.0)
    assert not exchange.ended
    exchange.response_body(body[-1:], 102.0)
    assert exchange.ended
    assert exchange.facts.usage.input_tokens == 3
    exchange.response_body(b"", 103.0)
    exchange.response_end(103.0)
    assert finish(exchange).duration == 2.0


def test_model_in_the_path() -> None:
    """Where the path names the model, it is the request's, whatever the body says."""
    api = replace(API, path=r"/(?P<model>[a-z]+)/talk")
    exchange = make({"model": "body"}, {":path": "/deployed/talk?version=1"}, api)
    assert exchange.facts.requested_model == "deployed"
    assert make({"model": "body"}, {":path": "/talk"}, api).facts.requested_model == "body"


def test_counts_in_headers() -> None:
    """What the response's headers report is known at once, and stands if the body says nothing."""
    exchange = make(api=replace(PLAIN, usage={"input_tokens": (("@x-input", "usage.input"),)}))
    exchange.response_headers({**OK, "x-input": "12"})
    assert (exchange.facts.usage.input_tokens, exchange.facts.usage_status) == (12, UsageStatus.REPORTED)
    exchange.response_body(b"{}", 101.0)
    exchange.response_end(102.0)
    assert finish(exchange).facts.usage.input_tokens == 12


def test_last_event() -> None:
    """With the event that ends a stream it is complete, though its bytes may go on."""
    exchange = make(api=replace(API, last=(("type", "stop"),)))
    exchange.response_headers(SSE)
    exchange.response_body(sse(RUNNING, {"type": "stop"}), 101.0)
    assert exchange.facts.usage_status is UsageStatus.REPORTED
    assert finish(exchange).outcome is Outcome.COMPLETE


@pytest.mark.parametrize("media", ["audio/mpeg", "image/png", "video/mp4"])
def test_media(media: str) -> None:
    """Sound and pictures are no broken JSON."""
    exchange = answer(make(), {**OK, "content-type": media}, b"\xff\xfb\x90d" * 100)
    assert finish(exchange).outcome is Outcome.COMPLETE
    assert exchange.gaps == {Gap.NO_USAGE}
    assert exchange.facts.streaming is False
