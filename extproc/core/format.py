"""What one API's requests and responses look like, as data.

A place is written as the names that lead to it: `usage.prompt_tokens_details.cached_tokens`, and with `[]` after a
name for each element of an array: `choices[].delta.content`. A place in the response's headers is `@` and the name of
the header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

import msgspec

from extproc.core.document import Document, Reader, count, text
from extproc.core.facts import Usage
from extproc.core.place import Steps, steps

Places = tuple[str, ...]
"""Alternative places of one value: the first that holds one is taken."""

Sum = tuple[Places, ...]
"""The terms that make up one count, each with its alternative places. Absent terms are left out of the sum."""

Counts = dict[int, int]
"""Terms as reported, by their number in `Format.terms`; later reports overwrite earlier ones term by term."""

Value = str | bool | None

Sign = tuple[str, Value]
"""A place with one value, or with any that is not null: `None`."""


@dataclass(frozen=True)
class Format:
    """One API: which requests are its own, and where their facts lie."""

    provider: str
    """Published as `provider`: whose API this is, not who serves it."""
    api: str
    """Published as `api`."""
    operation: str
    """OpenTelemetry's gen_ai.operation.name
    (https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/)."""
    path: str
    """Regular expression for the whole path, without its query. A group `model` in it is the request's model."""
    usage: Mapping[str, Sum]
    """The fields of `Usage` that a response or an event may report. Of several values at one place, the sum."""
    host: str = ".*"
    """Regular expression for the whole host, in lower case, where the path alone does not tell the API."""
    request_model: Places = ("model",)
    response_model: Places = ("model",)
    content: Places = ()
    """Where a stream's event has content, reasoning or a tool call: the first that is not empty is the first token."""
    running: str | None = None
    """Counts in an event that has something at this place are running ones, until `finish`; others are final ones."""
    finish: Places = ()
    """Where an event says that its answer is over; counts in it and after it are final ones."""
    done: bytes | None = None
    """The event that ends a stream, where it is no JSON."""
    last: tuple[Sign, ...] = ()
    """The event that ends a stream, where it is JSON, has one of these."""
    array: bool = False
    """A stream may come as one JSON array that grows."""
    lines: bool = False
    """A stream may come as a document a line, also where it is not labelled so."""
    words: bool = False
    """A good answer may come as plain text, also where it is not labelled so."""
    output_is_rest: bool = False
    """Of the total, what is not input is output, also where `output_tokens` leaves a part of it (reasoning) out."""
    error: Places = ("error",)
    """Where a response or an event has an error in place of an answer: anything that is not empty."""
    failed: tuple[Sign, ...] = ()
    """What says that an answer is none, or was broken off by an error, without telling more: it has one of these."""

    def claims(self, method: str, path: str, host: str = "") -> bool:
        """Tell whether a request is this API's; `path` comes without its query, `host` in lower case."""
        return method == "POST" and self._path.fullmatch(path) is not None and self._host.fullmatch(host) is not None

    def model_in_path(self, path: str) -> str | None:
        """Return the model that the path of a claimed request names."""
        if "model" not in self._path.groupindex:
            return None
        found = self._path.fullmatch(path)
        return unquote(found["model"] or "") or None if found else None

    @cached_property
    def response_headers(self) -> frozenset[str]:
        """The names of the headers of a response that hold facts."""
        return frozenset(place[1:] for place in self._header_places)

    def in_headers(self, headers: Mapping[str, str]) -> Document:
        """Return what is wanted of a response's headers."""
        return {place: [headers[place[1:]]] for place in self._header_places if place[1:] in headers}

    @cached_property
    def request(self) -> Reader:
        """Reads what is wanted of a request."""
        return Reader(self.request_model)

    @cached_property
    def response(self) -> Reader:
        """Reads what is wanted of a whole response, and of an event once the first token has been seen."""
        places = (*self.response_model, *self.error, *self._usage_places, *_optional(self.running), *self.finish)
        return Reader(_in_body((*places, *(place for place, _ in (*self.last, *self.failed)))))

    @cached_property
    def event(self) -> Reader:
        """Reads what is wanted of an event before the first token."""
        return Reader((*self.response.wanted, *self.content))

    def has_news(self, event: bytes) -> bool:
        """Tell, without decoding it, whether an event may have counts, an error or an end of the answer.

        It may say yes wrongly, and no only to names written with escapes, which nobody does. The event may also be
        given as it stands in its stream, in one line.
        """
        return self._news.search(event) is not None or (self.done is not None and self.done in event)

    def requested_model(self, document: Document) -> str | None:
        """Return the model that a request names."""
        return _first_text(document, self.request_model)

    def responded_model(self, document: Document) -> str | None:
        """Return the model that a response or an event names."""
        return _first_text(document, self.response_model)

    def has_content(self, event: Document) -> bool:
        """Tell whether an event brings content, reasoning or a tool call, and not just a role or a sign of life."""
        return _has_any(event, self.content)

    def has_error(self, document: Document) -> bool:
        """Tell whether a response or an event is an error in place of an answer."""
        return _has_any(document, self.error) or _has_one(document, self.failed)

    def is_final(self, event: Document) -> bool:
        """Tell whether the counts of an event are the final ones."""
        return self.running is not None and self.running not in event

    def is_finish(self, event: Document) -> bool:
        """Tell whether an event says that the answer is over."""
        return _has_any(event, self.finish)

    def is_last(self, event: Document) -> bool:
        """Tell whether an event ends its stream."""
        return _has_one(event, self.last)

    def counts(self, document: Document) -> Counts:
        """Return the counts that a response or an event reports, term by term."""
        counts: Counts = {}
        for number, places in enumerate(self.terms):
            for place in places:
                if place in document and (found := _count(document[place])) is not None:
                    counts[number] = found
                    break
        return counts

    def total(self, counts: Counts) -> Usage:
        """Add the terms up."""
        given, written, total, *parts = [
            counts.get(terms[0]) if len(terms) == 1 else _sum(counts, terms) for terms in self._sums
        ]
        if given is not None and written is not None:
            if total is None:
                total = given + written
            elif self.output_is_rest:
                written = max(written, total - given)
        return Usage(given, written, total, *parts)

    @cached_property
    def terms(self) -> tuple[Places, ...]:
        """The terms that the counts are made of, each once."""
        return tuple(dict.fromkeys(places for terms in self.usage.values() for places in terms))

    @cached_property
    def _sums(self) -> tuple[tuple[int, ...], ...]:
        """For each field of `Usage`, which terms it is the sum of."""
        return tuple(tuple(map(self.terms.index, self.usage.get(name, ()))) for name in Usage._fields)

    @cached_property
    def _path(self) -> re.Pattern[str]:
        return re.compile(self.path)

    @cached_property
    def _host(self) -> re.Pattern[str]:
        return re.compile(self.host)

    @cached_property
    def _header_places(self) -> tuple[str, ...]:
        places = (*self._usage_places, *self.response_model)
        return tuple(place for place in places if place.startswith("@"))

    @cached_property
    def _news(self) -> re.Pattern[bytes]:
        signs = [(steps(place)[-1], value) for place, value in (*self.last, *self.failed)]
        ends = [steps(place)[-1] for place in (*self.error, *self.finish)]
        ends += [name for name, value in signs if value is None]
        names = dict.fromkeys((*_telling(map(steps, _in_body(self._usage_places))), *ends))
        pattern = "|".join(re.escape(name) for name in names)
        # A value that is not null. Inside a string the name's closing quote would be escaped.
        patterns = [rf'"(?:{pattern})"\s*:\s*[^\sn]']
        patterns += [
            rf'"{re.escape(name)}"\s*:\s*{re.escape(_json(value))}' for name, value in signs if value is not None
        ]
        return re.compile("|".join(patterns).encode())

    @property
    def _usage_places(self) -> Iterator[str]:
        return (place for terms in self.usage.values() for places in terms for place in places)


def _optional(place: str | None) -> Places:
    return () if place is None else (place,)


def _in_body(places: Iterable[str]) -> Iterator[str]:
    """Return the places that are not in the headers."""
    return (place for place in places if not place.startswith("@"))


def _telling(paths: Iterable[Steps]) -> Iterator[str]:
    """Yield names, as few as will do, of which one is in each document that has a value at one of these places.

    That is a name on the way, close to the value: `usage` for `delta.usage.tokens.input`, and not `delta`, which is in
    all events.
    """
    found: set[str] = set()
    for path in sorted(paths, key=len):
        if found.isdisjoint(path):
            parent = path[-2] if len(path) > 1 else "[]"
            found.add(name := path[-1] if parent == "[]" else parent)
            yield name


def _count(values: list[object]) -> int | None:
    """Return the sum of the counts at a place."""
    if len(values) == 1:
        return count(values[0])
    numbers = [found for value in values if (found := count(value)) is not None]
    return sum(numbers) if numbers else None


def _sum(counts: Counts, terms: tuple[int, ...]) -> int | None:
    reported = [counts[term] for term in terms if term in counts]
    return sum(reported) if reported else None


def _has_any(document: Document, places: Places) -> bool:
    """Tell whether there is something that is not empty at one of these places."""
    return any(place in document and any(document[place]) for place in places)


def _has_one(document: Document, signs: tuple[Sign, ...]) -> bool:
    return any(
        value is not None if wanted is None else value == wanted
        for place, wanted in signs
        if place in document
        for value in document[place]
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _first_text(document: Document, places: Places) -> str | None:
    for place in places:
        if place in document:
            for value in document[place]:
                if name := text(value):
                    return name
    return None
