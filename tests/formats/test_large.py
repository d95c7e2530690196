"""Answers of megabytes, with counts deep inside them, as Envoy hands them over."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from extproc import formats
from extproc.core.exchange import Exchange, Limits
from extproc.core.facts import Facts, Gap, Usage, UsageStatus

CHUNK = 64 * 1024
LARGE = 3 * 1024 * 1024
PICTURE = "iVBORw0KGgoAAAANSUhEUgAABAAAAAQACAIAAADwf7zU" * (LARGE // 44)
VECTOR = [-0.020920176059007645, 0.009755219332873821, 0.004780902992933989] * 256

VERTEX = "/v1/projects/p/locations/us-central1/publishers/google/models/text-embedding-005:predict"


def play(path: str, body: bytes, content_type: str = "application/json") -> tuple[Facts, set[Gap]]:
    """Let an answer go by in chunks, and return what is known of it."""
    api = formats.find("POST", path)
    assert api is not None
    exchange = Exchange(api, {":path": path}, 0.0, Limits())
    exchange.request_end()
    exchange.response_headers({":status": "200", "content-type": content_type})
    for start in range(0, len(body), CHUNK):
        exchange.response_body(body[start : start + CHUNK], 1.0)
    exchange.response_end(2.0)
    record = exchange.finish(3.0)
    assert record is not None
    return record.facts, exchange.gaps


def prediction(tokens: int) -> object:
    """Return Vertex's answer for one text."""
    return {"embeddings": {"statistics": {"truncated": False, "token_count": tokens}, "values": VECTOR}}


@pytest.mark.parametrize("indent", [None, 2])
def test_predictions(indent: int | None) -> None:
    """The tokens of all texts are added up, beside vectors of any size."""
    answer = {"predictions": [prediction(tokens) for tokens in range(250)], "metadata": {"billableCharacterCount": 12}}
    body = json.dumps(answer, indent=indent).encode()
    assert len(body) > LARGE
    facts, gaps = play(VERTEX, body)
    assert (facts.usage, facts.usage_status) == (Usage(input_tokens=sum(range(250))), UsageStatus.REPORTED)
    assert gaps == set()


def test_too_many_counts() -> None:
    """Counts that are too many to be held are lost, all of them: a sum is never of a part."""
    elements = b",".join([b'{"generated_tokens":1}'] * 100_000)
    facts, gaps = play("/generate", b'{"details":{"generated_tokens":7,"best_of_sequences":[' + elements + b"]}}")
    assert (facts.usage, facts.usage_status) == (Usage(), UsageStatus.MISSING)
    assert gaps == {Gap.TOO_LARGE, Gap.NO_USAGE}


USAGE = {
    "input_tokens": 31,
    "input_tokens_details": {"cached_tokens": 5},
    "output_tokens": 272,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 303,
}


def completed(event: Mapping[str, object]) -> bytes:
    """Write a stream that ends with an event that repeats the whole response."""
    created = {"type": "response.created", "response": {"model": "gpt-5", "output": [], "usage": None}}
    delta = {"type": "response.output_text.delta", "delta": "Here"}
    return "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in (created, delta, event)).encode()


@pytest.mark.parametrize("behind", [True, False])
def test_pictures_in_a_stream(*, behind: bool) -> None:
    """The event that ends a stream has pictures in it, and the counts of the stream before or behind them."""
    output = [
        {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": PICTURE},
        {"type": "message", "content": [{"type": "output_text", "text": 'said "usage": {"output_tokens": 1}'}]},
    ]
    usage = {"usage": USAGE}
    response = {"model": "gpt-5", **({} if behind else usage), "output": output, **usage, "user": None}
    body = completed({"type": "response.completed", "sequence_number": 9, "response": response})
    facts, gaps = play("/v1/responses", body, "text/event-stream")
    assert facts.usage == Usage(31, 272, 303, cached_input_tokens=5, reasoning_output_tokens=64)
    assert (facts.response_model, facts.usage_status) == ("gpt-5", UsageStatus.REPORTED)
    assert gaps == {Gap.TOO_LARGE}


def test_wrapped_picture() -> None:
    """An answer that is wrapped in another object has its counts and its model behind a picture."""
    picture = {"inlineData": {"mimeType": "image/png", "data": PICTURE}}
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 1290, "totalTokenCount": 1297}
    response = {
        "candidates": [{"content": {"role": "model", "parts": [picture]}, "finishReason": "STOP"}],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash-image",
    }
    facts, gaps = play("/v1internal:generateContent", json.dumps({"response": response}).encode())
    assert facts.usage == Usage(7, 1290, 1297)
    assert (facts.response_model, facts.usage_status) == ("gemini-2.5-flash-image", UsageStatus.REPORTED)
    assert gaps == set()
