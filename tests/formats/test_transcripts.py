"""Vendors' transcripts: the same facts however the bytes are cut and encoded, and true ones when they break off."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from tests import cuts
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
    def events(self) -> list[bytes]:
        """The events of a streamed response, each with the blank line that ends it."""
        return [event + b"\n\n" for event in self.response.body.split(b"\n\n") if event]


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
    found = formats.find(headers[":method"], headers[":path"].partition("?")[0])
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


def ids(folder: Path) -> str:
    """Name a transcript."""
    return f"{folder.parent.name}/{folder.name}"


every_transcript = pytest.mark.parametrize("folder", FOLDERS, ids=ids)
every_streamed = pytest.mark.parametrize("folder", [f for f in FOLDERS if read(f).known["streaming"]], ids=ids)
every_whole = pytest.mark.parametrize("folder", [f for f in FOLDERS if not read(f).known["streaming"]], ids=ids)
every_encoding = pytest.mark.parametrize(
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
@every_encoding
def test_response_in_two(folder: Path, encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """No cut of the response changes the facts."""
    transcript = read(folder)
    request = [encode(transcript.request.body)]
    for response in in_two(encode(transcript.response.body)):
        assert play(transcript, request, response, encoding=encoding) == (transcript.known, transcript.gaps)


@every_transcript
@every_encoding
def test_request_in_two(folder: Path, encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """No cut of the request changes the facts."""
    transcript = read(folder)
    # Which the response has no part in: an empty one is enough, and much faster.
    whole = encode(transcript.request.body)
    expected, _ = play(transcript, [whole], [], encoding=encoding)
    assert expected["request_model"] == transcript.known["request_model"]
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
    limits = Limits(document=1)
    for response in in_two(transcript.response.body):
        assert play(transcript, [transcript.request.body], response, limits=limits) == (
            transcript.known,
            transcript.gaps,
        )
    assert play(transcript, bytewise(transcript.request.body), bytewise(transcript.response.body), limits=limits) == (
        transcript.known,
        transcript.gaps,
    )


# What streams say so far, read with another JSON decoder and in the vendors' own terms. By `api`.

Event = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """An independent reader of one API's events."""

    usage: Callable[[Sequence[Event]], Known]
    """What is known of the tokens after some events."""
    content: Callable[[Event], bool]
    """Whether an event brings a token."""
    done: bytes


def openai_usage(events: Sequence[Event]) -> Known:
    """Read the last usage object; one that comes with choices is a running count, until the answer is finished."""
    reports = [event for event in events if event.get("usage")]
    if not reports:
        return {"usage": "missing"}
    usage = reports[-1]["usage"]
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    counts = {
        "request_prompt_tokens": usage["prompt_tokens"],
        "request_completion_tokens": usage["completion_tokens"],
        "request_total_tokens": usage["total_tokens"],
        "cached_prompt_tokens": prompt.get("cached_tokens"),
        "cache_creation_prompt_tokens": prompt.get("cache_write_tokens"),
        "reasoning_completion_tokens": completion.get("reasoning_tokens"),
    }
    finished = [event for event in events if any(choice.get("finish_reason") for choice in event["choices"])]
    final = not reports[-1]["choices"] or (finished and events.index(finished[0]) <= events.index(reports[-1]))
    status = "reported" if final else "partial"
    return {"usage": status} | {name: value for name, value in counts.items() if value is not None}


READINGS = {
    "chat_completions": Reading(
        openai_usage,
        lambda event: any(
            value for choice in event["choices"] for name, value in choice["delta"].items() if name != "role"
        ),
        b"[DONE]",
    ),
    "completions": Reading(openai_usage, lambda event: any(choice["text"] for choice in event["choices"]), b"[DONE]"),
}


def decoded(transcript: Transcript) -> list[Event | None]:
    """Decode the events of a stream; `None` for those without a document."""
    reading = READINGS[str(transcript.known["api"])]
    data = [event.removeprefix(b"data:").strip() for event in transcript.events]
    return [None if each == reading.done else json.loads(each) for each in data]


def expected_so_far(transcript: Transcript, number: int) -> Known:
    """Read independently what is known of the tokens after so many events."""
    events = decoded(transcript)[:number]
    usage = READINGS[str(transcript.known["api"])].usage([event for event in events if event is not None])
    # What is known when the stream is done is what there is.
    return usage | {"usage": "reported"} if None in events and usage["usage"] == "partial" else usage


def of_tokens(published: Mapping[str, object]) -> Known:
    """Leave of the metadata what says something of the tokens."""
    return {name: value for name, value in published.items() if name == "usage" or name.endswith("_tokens")}


@every_streamed
def test_broken_off(folder: Path) -> None:
    """A stream that breaks off after any event is aborted, with the counts of the events so far and no others."""
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
        assert facts["outcome"] == (Outcome.COMPLETE if None in documents[:number] else Outcome.ABORTED)
        assert facts["request_model"] == transcript.known["request_model"]
        assert facts.get("response_model") == (transcript.known["response_model"] if number else None)
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
    content = READINGS[str(transcript.known["api"])].content
    exchange = begin(transcript, Limits())
    exchange.response_headers(transcript.response.headers)
    for number, event in enumerate(transcript.events):
        exchange.response_body(event, float(number))
    first = next(number for number, event in enumerate(decoded(transcript)) if event is not None and content(event))
    assert first > 0 or transcript.known["api"] == "completions", "a chat begins with a role"
    assert exchange.facts.time_to_first_token == first


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
    claiming = [f"{each.provider}_{each.api}" for each in formats.FORMATS if each.claims(headers[":method"], path)]
    assert claiming == [folder.parent.name]


@pytest.mark.parametrize("each", formats.FORMATS, ids=lambda each: f"{each.provider}_{each.api}")
def test_every_format_has_transcripts(each: Format) -> None:
    """A format comes with a whole answer, an error and, if it has streams, a stream."""
    transcripts = [read(folder).known for folder in FOLDERS if folder.parent.name == f"{each.provider}_{each.api}"]
    kinds = {"error" if known["outcome"] == "error" else known["streaming"] for known in transcripts}
    assert kinds >= ({False, True, "error"} if each.content else {False, "error"})
