"""Vendors' transcripts: the same facts however the bytes are cut and encoded, and true ones when they break off."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from extproc import formats
from extproc.core.exchange import Exchange, Limits
from extproc.core.facts import Gap, Outcome
from extproc.core.format import Format
from extproc.metadata import metadata
from tests import cuts, encodings
from tests.cuts import bytewise, in_two

FILES = {"SOURCE", "request.http", "response.http", "facts.json"}
FOLDERS = sorted(folder for folder in (Path(__file__).parents[1] / "transcripts").glob("*/*") if folder.is_dir())

_NOT_FACTS = {"model_tag", "time_to_first_token_ms", "time_per_output_token_ms"}

Known = dict[str, object]
Pieces = Iterable[bytes]


@dataclass(frozen=True)
class Message:
    """One half of a transcript, its headers as Envoy would send them."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Transcript:
    """One exchange with a vendor, and what is known of it."""

    request: Message
    response: Message
    known: Known

    @property
    def gaps(self) -> set[Gap]:
        """Only a good answer without counts leaves a gap."""
        return {Gap.NO_USAGE} if (self.known["outcome"], self.known["usage"]) == ("complete", "missing") else set()

    @property
    def is_event_stream(self) -> bool:
        """Whether the response is an AWS event stream, which is cut into messages."""
        return self.response.headers.get("content-type") == "application/vnd.amazon.eventstream"

    @property
    def is_ndjson(self) -> bool:
        """Whether the response is a document a line."""
        return self.response.headers.get("content-type") in {"application/x-ndjson", "application/stream+json"}

    @property
    def is_array(self) -> bool:
        """Whether the response is one JSON array that grows."""
        return self.response.body.startswith(b"[")

    @property
    def events(self) -> list[bytes]:
        """The events of a streamed response, each with what ends it: a line end, or a blank line."""
        if self.is_event_stream:
            return list(frames(self.response.body))
        if self.is_ndjson:
            return self.response.body.splitlines(keepends=True)
        if self.is_array:
            return list(elements(self.response.body))
        if b"\r\n\r\n" in self.response.body:
            # Its first character ends a line. What is left of the last line end is an event of nothing.
            return re.findall(rb"(?s).+?(?:\r\n\r|\Z)", self.response.body)
        return [event + b"\n\n" for event in self.response.body.split(b"\n\n") if event]


def frames(body: bytes) -> Iterator[bytes]:
    """Cut an AWS event stream into its messages: each begins with its length."""
    while body:
        length = int.from_bytes(body[:4], "big")
        yield body[:length]
        body = body[length:]


def elements(body: bytes) -> Iterator[bytes]:
    """Cut a JSON array after each element, which has before it what parts it from the last one; then comes the rest."""
    text, start = body.decode(), 0
    while found := re.compile(r"[\[\s,]*(?=\{)").match(text, start):
        _, end = json.JSONDecoder().raw_decode(text, found.end())
        yield text[start:end].encode()
        start = end
    yield text[start:].encode()


def frame_document(frame: bytes) -> dict[str, Any]:
    """Decode the payload of a message, and the document that its member `bytes` carries."""
    start = 12 + int.from_bytes(frame[4:8], "big")
    payload: dict[str, Any] = json.loads(frame[start:-4])
    if b":exception-type" in frame[:start]:
        return {"error": payload}
    document: dict[str, Any] = json.loads(base64.b64decode(payload["bytes"])) if "bytes" in payload else payload
    return document


@cache
def read(folder: Path) -> Transcript:
    """Read a transcript; head and body are parted by the first blank line."""
    messages = []
    for name in ("request.http", "response.http"):
        head, _, body = (folder / name).read_bytes().partition(b"\n\n")
        first, *lines = head.decode().splitlines()
        words = first.split(" ")
        pseudo = {":method": words[0], ":path": words[1]} if name == "request.http" else {":status": words[1]}
        fields = {field.lower(): value.strip() for field, _, value in (line.partition(":") for line in lines)}
        messages.append(Message(pseudo | fields, body))
    return Transcript(messages[0], messages[1], json.loads((folder / "facts.json").read_bytes()))


def begin(transcript: Transcript, limits: Limits, encoding: str = "") -> Exchange:
    """Make an exchange from the request's headers, with both bodies so encoded."""
    headers = {**transcript.request.headers, "content-encoding": encoding}
    found = formats.find(headers[":method"], headers[":path"].partition("?")[0], headers["host"])
    assert found is not None
    return Exchange(found, headers, 0.0, limits)


def play(
    transcript: Transcript, request: Pieces, response: Pieces, *, encoding: str = "", limits: Limits | None = None
) -> tuple[Known, set[Gap]]:
    """Feed a transcript in pieces to its end; return what is known then, without times."""
    exchange = begin(transcript, limits or Limits(), encoding)
    for piece in request:
        exchange.request_body(piece)
    exchange.request_end()
    exchange.response_headers({**transcript.response.headers, "content-encoding": encoding})
    for piece in response:
        exchange.response_body(piece, 1.0)
    exchange.response_end(2.0)
    return known(exchange), exchange.gaps


def known(exchange: Exchange) -> Known:
    """End the exchange; return what is known, without times."""
    record = exchange.finish(3.0)
    assert record is not None
    assert exchange.finish(4.0) is None, "an exchange is recorded once"
    facts: Known = {key: value for key, value in metadata(record.facts, "m").items() if key not in _NOT_FACTS}
    return facts | {"outcome": record.outcome.value}


def gzip_members(body: bytes) -> bytes:
    """Compress a body as three members, one of them empty."""
    half = len(body) // 2
    return b"".join(gzip.compress(part, mtime=0) for part in (body[:half], b"", body[half:]))


def identity(body: bytes) -> bytes:
    """Leave a body as it is."""
    return body


def compressed(body: bytes) -> bytes:
    """Compress a body as one member."""
    return gzip.compress(body, mtime=0)


def name(each: Format) -> str:
    """Return the name of a format's module: its provider, without dots, and its API."""
    return f"{each.provider.replace('.', '_')}_{each.api}"


def ids(folder: Path) -> str:
    """Name a transcript."""
    return f"{folder.parent.name}/{folder.name}"


every_transcript = pytest.mark.parametrize("folder", FOLDERS, ids=ids)
every_streamed = pytest.mark.parametrize("folder", [f for f in FOLDERS if read(f).known["streaming"]], ids=ids)
every_whole = pytest.mark.parametrize("folder", [f for f in FOLDERS if not read(f).known["streaming"]], ids=ids)
every_encoding = pytest.mark.parametrize(
    ("encoding", "encode"),
    [("", identity), ("gzip", gzip_members), *((each.header, each) for each in encodings.ALL.values())],
    ids=["identity", "gzip members", *encodings.ALL],
)
some_encodings = pytest.mark.parametrize(
    ("encoding", "encode"), [("", identity), ("gzip", compressed), ("gzip", gzip_members)]
)


@every_transcript
@every_encoding
@pytest.mark.parametrize("cut", [lambda body: [body], bytewise], ids=["whole", "bytewise"])
def test_pieces(
    folder: Path, encoding: str, encode: Callable[[bytes], bytes], cut: Callable[[bytes], list[bytes]]
) -> None:
    """The facts are those of the transcript, whole or byte by byte, plain or compressed."""
    transcript = read(folder)
    request, response = cut(encode(transcript.request.body)), cut(encode(transcript.response.body))
    assert play(transcript, request, response, encoding=encoding) == (transcript.known, transcript.gaps)


@every_transcript
@some_encodings
def test_response_in_two(folder: Path, encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """No cut of the response changes the facts."""
    transcript = read(folder)
    request = [encode(transcript.request.body)]
    for response in in_two(encode(transcript.response.body)):
        assert play(transcript, request, response, encoding=encoding) == (transcript.known, transcript.gaps)


@every_transcript
@some_encodings
def test_request_in_two(folder: Path, encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """No cut of the request changes the facts."""
    transcript = read(folder)
    # Which the response has no part in: an empty one is enough, and much faster.
    whole = encode(transcript.request.body)
    expected, _ = play(transcript, [whole], [], encoding=encoding)
    assert is_nameless(transcript) or expected["request_model"] == transcript.known["request_model"]
    for request in in_two(whole):
        assert play(transcript, request, [], encoding=encoding)[0] == expected


@every_transcript
@settings(max_examples=20)
@given(places=cuts.places)
def test_random_pieces(folder: Path, places: Sequence[float]) -> None:
    """No cuts of request and response change the facts."""
    transcript = read(folder)
    request, response = cuts.at(places, transcript.request.body), cuts.at(places, transcript.response.body)
    assert play(transcript, request, response) == (transcript.known, transcript.gaps)


@every_whole
def test_over_the_limit(folder: Path) -> None:
    """A body that is too long to be held has the same facts, however it is cut."""
    transcript = read(folder)
    # A field of a form is held whole.
    is_form = transcript.request.headers.get("content-type", "").startswith("multipart/")
    limits = Limits(document=32 if is_form else 1)
    # An element of an array says that it was too long, as an event does.
    expected = (transcript.known, transcript.gaps | ({Gap.TOO_LARGE} if transcript.is_array else set()))
    for response in in_two(transcript.response.body):
        assert play(transcript, [transcript.request.body], response, limits=limits) == expected
    request, response = bytewise(transcript.request.body), bytewise(transcript.response.body)
    assert play(transcript, request, response, limits=limits) == expected


# What streams say so far, read with another JSON decoder and in the vendors' own terms. By `api`.

Event = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """An independent reader of one API's events."""

    usage: Callable[[Sequence[Event]], Known]
    """What is known of the tokens after some events."""
    content: Callable[[Event], bool]
    """Whether an event brings a token."""
    done: bytes = b""
    """The data of an event that ends the stream and is no document."""
    last: Callable[[Event], bool] = lambda event: False  # noqa: ARG005
    """Whether a document ends the stream."""
    model: Callable[[Event], object] = lambda event: event.get("model")
    """The model that an event names."""
    failed: Callable[[Event], bool] = lambda event: bool(event.get("error"))
    """Whether an event is an error."""


def openai_report(event: Event) -> Event:
    """Return the usage object of an event, wherever one of the many keeps it."""
    in_choice = next((choice["usage"] for choice in event.get("choices", ()) if "usage" in choice), None)
    report: Event = event.get("usage") or event.get("x_groq", {}).get("usage") or in_choice or {}
    return report


def openai_usage(events: Sequence[Event]) -> Known:
    """Read the last usage object; one that comes with choices is a running count, until the answer is finished."""
    reports = [event for event in events if openai_report(event)]
    if not reports:
        return {"usage": "missing"}
    usage = openai_report(reports[-1])
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    counts = {
        "request_prompt_tokens": usage["prompt_tokens"],
        # xAI counts the reasoning in the total only.
        "request_completion_tokens": max(usage["completion_tokens"], usage["total_tokens"] - usage["prompt_tokens"]),
        "request_total_tokens": usage["total_tokens"],
        "cached_prompt_tokens": prompt.get("cached_tokens"),
        "cache_creation_prompt_tokens": prompt.get("cache_write_tokens"),
        "reasoning_completion_tokens": completion.get("reasoning_tokens"),
    }
    finished = [event for event in events if any(choice.get("finish_reason") for choice in event.get("choices", ()))]
    final = not reports[-1]["choices"] or (finished and events.index(finished[0]) <= events.index(reports[-1]))
    status = "reported" if final else "partial"
    return {"usage": status} | {name: value for name, value in counts.items() if value is not None}


def dashscope_usage(events: Sequence[Event]) -> Known:
    """Read the last usage object, which has all counts so far; an application's has one of them for each model."""
    reports = [event["usage"] for event in events if event.get("usage")]
    if not reports:
        return {"usage": "missing"}
    models = reports[-1].get("models") or [reports[-1]]
    prompt, completion = (sum(model[f"{kind}_tokens"] for model in models) for kind in ("input", "output"))
    counts = {
        "request_prompt_tokens": prompt,
        "request_completion_tokens": completion,
        "request_total_tokens": reports[-1].get("total_tokens", prompt + completion),
        "cached_prompt_tokens": reports[-1].get("prompt_tokens_details", {}).get("cached_tokens"),
        "reasoning_completion_tokens": reports[-1].get("output_tokens_details", {}).get("reasoning_tokens"),
    }
    return {"usage": "partial"} | {name: value for name, value in counts.items() if value is not None}


def dashscope_choice(event: Event) -> Event:
    """Return the part of an event that has its text and the reason why it ends, which is the word null until then."""
    output: Event = event.get("output", {})
    return {**output, **output.get("choices", [{}])[0], **output.get("choices", [{}])[0].get("message", {})}


DASHSCOPE = Reading(
    dashscope_usage,
    lambda event: any(dashscope_choice(event).get(name) for name in ("text", "content", "reasoning_content")),
    last=lambda event: dashscope_choice(event).get("finish_reason", "null") != "null",
    model=lambda event: event.get("usage", {}).get("models", [{}])[0].get("model_id"),
    failed=lambda event: "code" in event,
)


OVER = {"response.completed", "response.incomplete", "response.failed", "error"}


def tokens_usage(reports: Sequence[Event]) -> Known:
    """Read the usage object of OpenAI's newer APIs, which comes in the last event only."""
    usage = next((report["usage"] for report in reports if report.get("usage")), None)
    if usage is None:
        return {"usage": "missing"}
    counts = {
        "request_prompt_tokens": usage["input_tokens"],
        "request_completion_tokens": usage["output_tokens"],
        "request_total_tokens": usage["total_tokens"],
        "cached_prompt_tokens": usage.get("input_tokens_details", {}).get("cached_tokens"),
        "reasoning_completion_tokens": usage.get("output_tokens_details", {}).get("reasoning_tokens"),
    }
    return {"usage": "reported"} | {name: value for name, value in counts.items() if value is not None}


def cached_usage(usage: Event, names: Sequence[str], *, final: bool) -> Known:
    """Add up the input that is counted in three parts: names of these, of which two are cached, and of the output."""
    fresh, read, written, output = names
    if not usage:
        return {"usage": "missing"}
    counts = {
        "request_prompt_tokens": sum(usage.get(name) or 0 for name in (fresh, read, written)),
        "request_completion_tokens": usage[output],
        "cached_prompt_tokens": usage.get(read),
        "cache_creation_prompt_tokens": usage.get(written),
    }
    counts["request_total_tokens"] = counts["request_prompt_tokens"] + counts["request_completion_tokens"]
    status = "reported" if final else "partial"
    return {"usage": status} | {name: value for name, value in counts.items() if value is not None}


def anthropic_usage(events: Sequence[Event]) -> Known:
    """Read the counts of the message's start, and over them those of its deltas."""
    usage: Event = {}
    for event in events:
        usage |= event.get("message", event).get("usage", {})
    final = any(event.get("delta", {}).get("stop_reason") for event in events)
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    return cached_usage(usage, names, final=final)


def anthropic_content(event: Event) -> bool:
    """Tell whether an event has text, thinking, or a tool's name or arguments."""
    if event["type"] == "content_block_start":
        return bool(event["content_block"]["type"] == "tool_use")
    return bool(event["type"] == "content_block_delta" and event["delta"]["type"] != "signature_delta")


def converse_usage(events: Sequence[Event]) -> Known:
    """Read the usage object after the stop reason."""
    usage: Event = next((event["usage"] for event in events if "usage" in event), {})
    names = ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens", "outputTokens")
    return cached_usage(usage, names, final=any("stopReason" in event for event in events))


def invoke_usage(events: Sequence[Event]) -> Known:
    """Read the metrics of the last event; before it, only Claude says something."""
    metrics = next((event[METRICS] for event in events if METRICS in event), None)
    if metrics is None:
        return anthropic_usage(events)
    names = ("inputTokenCount", "cacheReadInputTokenCount", "cacheWriteInputTokenCount", "outputTokenCount")
    return cached_usage(metrics, names, final=True)


METRICS = "amazon-bedrock-invocationMetrics"
ANTHROPIC = Reading(
    anthropic_usage,
    anthropic_content,
    last=lambda event: event["type"] == "message_stop",
    model=lambda event: event.get("message", {}).get("model"),
)


def ollama_usage(events: Sequence[Event]) -> Known:
    """Read the counts of the event that says done."""
    last = next((event for event in events if event.get("done")), {})
    return native_usage(
        last.get("prompt_eval_count"), last.get("eval_count"), last.get("prompt_eval_cached_count"), final=True
    )


def tgi_usage(events: Sequence[Event]) -> Known:
    """Read the details of the event that has the whole text."""
    details = next((event["details"] for event in events if event.get("generated_text")), None) or {}
    return native_usage(details.get("input_length"), details.get("generated_tokens"), None, final=True)


def llamacpp_usage(events: Sequence[Event]) -> Known:
    """Read the last event's counts: there are some in each."""
    last = events[-1] if events else {}
    cached = last.get("timings", {}).get("cache_n")
    return native_usage(last.get("tokens_evaluated"), last.get("tokens_predicted"), cached, final=False)


def native_usage(prompt: int | None, completion: int | None, cached: int | None, *, final: bool) -> Known:
    """Name the counts that there are, and their sum if both are."""
    total = None if prompt is None or completion is None else prompt + completion
    counts = {
        "request_prompt_tokens": prompt,
        "request_completion_tokens": completion,
        "request_total_tokens": total,
        "cached_prompt_tokens": cached,
    }
    found: Known = {name: value for name, value in counts.items() if value is not None}
    status = "reported" if final else "partial"
    return found | {"usage": status if found else "missing"}


def gemini_usage(answers: Sequence[Event]) -> Known:
    """Read the last usage object that has counts; they are running ones until the answer or its prompt is finished."""
    reports = [answer for answer in answers if "promptTokenCount" in answer.get("usageMetadata", {})]
    if not reports:
        return {"usage": "missing"}
    usage = reports[-1]["usageMetadata"]
    counts = {
        "request_prompt_tokens": usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0),
        "request_completion_tokens": usage.get("candidatesTokenCount"),
        "request_total_tokens": usage["totalTokenCount"],
        "cached_prompt_tokens": usage.get("cachedContentTokenCount"),
        "reasoning_completion_tokens": usage.get("thoughtsTokenCount"),
    }
    if "thoughtsTokenCount" in usage:
        counts["request_completion_tokens"] = usage["totalTokenCount"] - counts["request_prompt_tokens"]
    final = any("finishReason" in candidate for answer in answers for candidate in answer.get("candidates", ()))
    return {"usage": "reported" if final else "partial"} | {k: v for k, v in counts.items() if v is not None}


def gemini_content(answer: Event) -> bool:
    """Tell whether an answer has a part with more than a signature in it."""
    parts = [part for candidate in answer.get("candidates", ()) for part in candidate["content"].get("parts", ())]
    return any(value for part in parts for key, value in part.items() if key not in {"thought", "thoughtSignature"})


GEMINI = Reading(gemini_usage, gemini_content, model=lambda answer: answer.get("modelVersion"))


def interactions_usage(events: Sequence[Event]) -> Known:
    """Read the last usage object: what tools bring in is input, thoughts are output."""
    reports = [usage for event in events if (usage := event.get("interaction", event).get("usage"))]
    if not reports:
        return {"usage": "missing"}
    counts = {
        "request_prompt_tokens": sum(reports[-1].get(f"total_{name}_tokens", 0) for name in ("input", "tool_use")),
        "request_completion_tokens": sum(reports[-1].get(f"total_{name}_tokens", 0) for name in ("output", "thought")),
        "request_total_tokens": reports[-1]["total_tokens"],
        "cached_prompt_tokens": reports[-1]["total_cached_tokens"],
        "reasoning_completion_tokens": reports[-1]["total_thought_tokens"],
    }
    return {"usage": "partial"} | counts


def cohere_usage(reports: Sequence[Event]) -> Known:
    """Read the tokens of the last event."""
    usage = next((report["tokens"] for report in reports if "tokens" in report), None)
    if usage is None:
        return {"usage": "missing"}
    return native_usage(usage["input_tokens"], usage["output_tokens"], None, final=True)


READINGS = {
    "chat_completions": Reading(
        openai_usage,
        lambda event: any(
            value for choice in event.get("choices", ()) for name, value in choice["delta"].items() if name != "role"
        ),
        b"[DONE]",
    ),
    "completions": Reading(openai_usage, lambda event: any(choice["text"] for choice in event["choices"]), b"[DONE]"),
    "responses": Reading(
        lambda events: tokens_usage([event.get("response", {}) for event in events]),
        lambda event: (
            event["type"].endswith(".delta")
            or (event["type"] == "response.output_item.added" and event["item"]["type"].endswith("_call"))
        ),
        last=lambda event: event["type"] in OVER,
        model=lambda event: event.get("response", {}).get("model"),
        failed=lambda event: event["type"] in {"response.failed", "error"},
    ),
    "images": Reading(
        tokens_usage,
        lambda event: event["type"] in {"image_generation.partial_image", "image_edit.partial_image"},
        last=lambda event: event["type"].endswith(".completed"),
    ),
    "audio_transcriptions": Reading(
        tokens_usage,
        lambda event: event["type"] == "transcript.text.delta",
        last=lambda event: event["type"] == "transcript.text.done",
    ),
    "audio_speech": Reading(
        tokens_usage,
        lambda event: event["type"] == "speech.audio.delta",
        last=lambda event: event["type"] == "speech.audio.done",
    ),
    "messages": ANTHROPIC,
    "anthropic_messages": ANTHROPIC,
    "converse": Reading(
        converse_usage,
        lambda event: any(event.get("delta", {}).values()) or "start" in event,
        last=lambda event: "usage" in event,
    ),
    "invoke": Reading(
        invoke_usage,
        lambda event: (
            anthropic_content(event) if "type" in event else bool({"contentBlockDelta", "outputText"} & event.keys())
        ),
        last=lambda event: event.get("type") == "message_stop",
        model=lambda event: event.get("message", {}).get("model"),
    ),
    "ollama_chat": Reading(
        ollama_usage,
        lambda event: any(event.get("message", {}).get(name) for name in ("content", "thinking", "tool_calls")),
        last=lambda event: event.get("done") is True,
    ),
    "ollama_generate": Reading(
        ollama_usage,
        lambda event: bool(event.get("response") or event.get("thinking")),
        last=lambda event: event.get("done") is True,
    ),
    "tgi_generate": Reading(
        tgi_usage, lambda event: bool(event.get("token")), last=lambda event: event.get("generated_text") is not None
    ),
    "llamacpp_completion": Reading(
        llamacpp_usage, lambda event: bool(event["content"]), last=lambda event: event["stop"] is True
    ),
    "generation": DASHSCOPE,
    "application": DASHSCOPE,
    "gcp.gemini_generate_content": GEMINI,
    "gcp.vertex_ai_generate_content": GEMINI,
    "gcp.gen_ai_generate_content": Reading(
        lambda events: gemini_usage([event.get("response", {}) for event in events]),
        lambda event: gemini_content(event.get("response", {})),
        model=lambda event: event.get("response", {}).get("modelVersion"),
    ),
    "interactions": Reading(
        interactions_usage,
        lambda event: (
            event["event_type"] == "step.delta"
            and event["delta"]["type"] in {"text", "thought_summary", "arguments_delta"}
        ),
        b"[DONE]",
        last=lambda event: event["event_type"] in {"interaction.completed", "error"},
        model=lambda event: event.get("interaction", {}).get("model"),
    ),
    "cohere_chat": Reading(
        lambda events: cohere_usage([event.get("response", {}).get("meta", {}) for event in events]),
        lambda event: event["event_type"] == "text-generation",
        last=lambda event: event["is_finished"] is True,
    ),
    "cohere_chat_v2": Reading(
        lambda events: cohere_usage([event.get("delta", {}).get("usage", {}) for event in events]),
        lambda event: event["type"] in {"content-delta", "tool-plan-delta", "tool-call-start"},
        b"[DONE]",
        last=lambda event: event["type"] == "message-end",
    ),
}


# Whose servers have one model, which requests need not name; and DashScope's applications, which choose their own.
NAMELESS = {"llamacpp", "tgi", "application"}


def is_nameless(transcript: Transcript) -> bool:
    """Tell whether a request names no model."""
    return bool(NAMELESS & {transcript.known["provider"], transcript.known["api"]})


def reading_of(transcript: Transcript) -> Reading:
    """Find the reader of a transcript: of its provider's API, or of all that are named so."""
    api = str(transcript.known["api"])
    return READINGS.get(f"{transcript.known['provider']}_{api}") or READINGS[api]


def decoded(transcript: Transcript) -> list[Event | None]:
    """Decode the events of a stream; `None` for those without a document."""
    if transcript.is_event_stream:
        return [frame_document(event) for event in transcript.events]
    if transcript.is_ndjson:
        return [json.loads(event) for event in transcript.events]
    if transcript.is_array:
        return [json.loads(event.lstrip(b"[,\r\n ").removesuffix(b"]") or b"{}") for event in transcript.events]
    done = reading_of(transcript).done
    lines = [[line for line in event.splitlines() if line.startswith(b"data:")] for event in transcript.events]
    data = [b"\n".join(line.removeprefix(b"data:").strip() for line in each) for each in lines]
    # An event of comments only is none to its reader.
    return [None if each == done and done else json.loads(each or b"{}") for each in data]


def has_ended(transcript: Transcript, events: Sequence[Event | None]) -> bool:
    """Tell whether the last of these events ends its stream."""
    last = reading_of(transcript).last
    return any(event is None or last(event) for event in events)


def outcome_so_far(transcript: Transcript, events: Sequence[Event | None]) -> Outcome:
    """Tell what a stream that breaks off after these events has come to."""
    failed = reading_of(transcript).failed
    if any(event is not None and failed(event) for event in events):
        return Outcome.ERROR
    # Of an answer with its final counts at most the mark of the stream's end is missing.
    whole = has_ended(transcript, events) or expected_so_far(transcript, len(events))["usage"] == "reported"
    return Outcome.COMPLETE if whole else Outcome.ABORTED


def model_so_far(transcript: Transcript, events: Sequence[Event | None]) -> object:
    """Return the last model that these events name, if they name one."""
    model = reading_of(transcript).model
    return next((name for event in reversed(events) if event is not None and (name := model(event))), None)


def expected_so_far(transcript: Transcript, number: int) -> Known:
    """Read independently what is known of the tokens after so many events."""
    events = decoded(transcript)[:number]
    usage = reading_of(transcript).usage([event for event in events if event is not None])
    # What is known when the stream is done is what there is.
    return usage | {"usage": "reported"} if has_ended(transcript, events) and usage["usage"] == "partial" else usage


def of_tokens(published: Mapping[str, object]) -> Known:
    """Leave of the metadata what says something of the tokens."""
    return {name: value for name, value in published.items() if name == "usage" or name.endswith("_tokens")}


@every_streamed
def test_broken_off(folder: Path) -> None:
    """A stream that breaks off is aborted, if its answer was not whole, with the counts of the events so far only."""
    transcript = read(folder)
    events = transcript.events
    documents = decoded(transcript)
    for number in range(len(events) + 1):
        exchange = begin(transcript, Limits())
        exchange.request_body(transcript.request.body)
        exchange.request_end()
        exchange.response_headers(transcript.response.headers)
        for event in events[:number]:
            exchange.response_body(event, 1.0)
        # The beginning of the next event says nothing yet.
        exchange.response_body((events[number] if number < len(events) else b"")[:-2], 1.0)
        facts = known(exchange)
        assert of_tokens(facts) == expected_so_far(transcript, number)
        assert facts["outcome"] == outcome_so_far(transcript, documents[:number])
        model = model_so_far(transcript, documents[:number])
        assert facts.get("response_model") == model
        asked = model if is_nameless(transcript) else transcript.known["request_model"]
        assert facts.get("request_model") == asked
        assert exchange.gaps <= {Gap.NO_USAGE}


@every_streamed
def test_as_it_goes_by(folder: Path) -> None:
    """After each byte of a stream the counts are those of the events so far."""
    transcript = read(folder)
    exchange = begin(transcript, Limits())
    exchange.response_headers(transcript.response.headers)
    for number, event in enumerate(transcript.events):
        before, after = expected_so_far(transcript, number), expected_so_far(transcript, number + 1)
        for byte in bytewise(event[:-1]):
            exchange.response_body(byte, 1.0)
            assert of_tokens(metadata(exchange.facts, "m")) == before
        exchange.response_body(event[-1:], 1.0)
        assert of_tokens(metadata(exchange.facts, "m")) == after


@every_streamed
def test_first_token(folder: Path) -> None:
    """The first token comes with the first event that has content, reasoning or a tool call."""
    transcript = read(folder)
    content = reading_of(transcript).content
    exchange = begin(transcript, Limits())
    exchange.response_headers(transcript.response.headers)
    for number, event in enumerate(transcript.events):
        exchange.response_body(event, float(number))
    numbers = (number for number, event in enumerate(decoded(transcript)) if event is not None and content(event))
    first = next(numbers, None)
    begins_at_once = transcript.known["api"] != "chat_completions" or folder.name.startswith(("perplexity", "xai"))
    assert first != 0 or begins_at_once, "a chat begins with a role"
    assert exchange.facts.time_to_first_token == first


def test_long_last_event() -> None:
    """The event that ends a stream counts when it repeats an answer of hundreds of KB, which comes in many pieces."""
    transcript = read(Path(__file__).parents[1] / "transcripts" / "openai_responses" / "streamed_tool_call")
    start, _, end = transcript.response.body.rpartition(b"Boston")
    body = start + b"Boston" * 100_000 + end
    pieces = [body[position : position + 10_000] for position in range(0, len(body), 10_000)]
    assert play(transcript, [transcript.request.body], pieces) == (transcript.known, set())


@every_transcript
def test_complete(folder: Path) -> None:
    """A transcript has its four files, and says where it is from."""
    assert {file.name for file in folder.iterdir()} == FILES
    assert (folder / "SOURCE").read_text().strip()


@every_transcript
def test_claimed_once(folder: Path) -> None:
    """A request is claimed by the format whose name its folder has, and by no other."""
    headers = read(folder).request.headers
    path = headers[":path"].partition("?")[0]
    claiming = [name(each) for each in formats.FORMATS if each.claims(headers[":method"], path, headers["host"])]
    assert claiming == [folder.parent.name]


@pytest.mark.parametrize("each", formats.FORMATS, ids=name)
def test_every_format_has_transcripts(each: Format) -> None:
    """A format comes with a whole answer, an error and, if it has streams, a stream."""
    transcripts = [read(folder).known for folder in FOLDERS if folder.parent.name == name(each)]
    kinds = {"error" if known["outcome"] == "error" else known["streaming"] for known in transcripts}
    assert kinds >= ({False, True, "error"} if each.content else {False, "error"})
