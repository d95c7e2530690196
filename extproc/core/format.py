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

from extproc.core.document import Document, Reader, Steps, count, steps, text, values
from extproc.core.facts import Usage

Places = tuple[str, ...]
"""Alternative places of one value: the first that holds one is taken."""

Sum = tuple[Places, ...]
"""The terms that make up one count, each with its alternative places. Absent terms are left out of the sum."""

Counts = dict[Places, int]
"""Terms as reported, by their places; later reports overwrite earlier ones term by term."""

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
        found = self._path.fullmatch(path)
        return unquote(found.groupdict().get("model") or "") or None if found else None

    def in_headers(self, headers: Mapping[str, str]) -> Document:
        """Return what is wanted of a response's headers."""
        return {place: headers[place[1:]] for place in self._header_places if place[1:] in headers}

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

        It may say yes wrongly, and no only to names written with escapes, which nobody does.
        """
        return self._news.search(event) is not None

    def requested_model(self, document: Document) -> str | None:
        """Return the model that a request names."""
        return _first_text(document, self._request_model)

    def responded_model(self, document: Document) -> str | None:
        """Return the model that a response or an event names."""
        return _first_text(document, self._response_model)

    def has_content(self, event: Document) -> bool:
        """Tell whether an event brings content, reasoning or a tool call, and not just a role or a sign of life."""
        return any(value for path in self._content for value in values(event, path))

    def has_error(self, document: Document) -> bool:
        """Tell whether a response or an event is an error in place of an answer."""
        told = any(value for path in self._error for value in values(document, path))
        return told or _has_one(document, self._failed)

    def is_final(self, event: Document) -> bool:
        """Tell whether the counts of an event are the final ones."""
        return self.running is not None and not any(True for _ in values(event, self._running))

    def is_finish(self, event: Document) -> bool:
        """Tell whether an event says that the answer is over."""
        return any(value for path in self._finish for value in values(event, path))

    def is_last(self, event: Document) -> bool:
        """Tell whether an event ends its stream."""
        return _has_one(event, self._last)

    def counts(self, document: Document) -> Counts:
        """Return the counts that a response or an event reports, term by term."""
        counts: Counts = {}
        for places, paths in self._terms:
            for path in paths:
                numbers = [number for value in values(document, path) if (number := count(value)) is not None]
                if numbers:
                    counts[places] = sum(numbers)
                    break
        return counts

    def total(self, counts: Counts) -> Usage:
        """Add the terms up."""
        sums: dict[str, int | None] = {}
        for name, terms in self.usage.items():
            reported = [counts[places] for places in terms if places in counts]
            sums[name] = sum(reported) if reported else None
        given, written, total = sums.get("input_tokens"), sums.get("output_tokens"), sums.get("total_tokens")
        if given is not None and written is not None:
            if total is None:
                sums["total_tokens"] = given + written
            elif self.output_is_rest:
                sums["output_tokens"] = max(written, total - given)
        return Usage(**sums)

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
    def _last(self) -> tuple[tuple[Steps, Value], ...]:
        return tuple((steps(place), value) for place, value in self.last)

    @cached_property
    def _failed(self) -> tuple[tuple[Steps, Value], ...]:
        return tuple((steps(place), value) for place, value in self.failed)

    @cached_property
    def _news(self) -> re.Pattern[bytes]:
        signs = (*self._last, *self._failed)
        ends = (*self._error, *self._finish, *(path for path, value in signs if value is None))
        counts = (path for _, paths in self._terms for path in paths if not path[0].startswith("@"))
        names = dict.fromkeys((*_telling(counts), *(path[-1] for path in ends)))
        pattern = "|".join(re.escape(name) for name in names)
        # A value that is not null. Inside a string the name's closing quote would be escaped.
        patterns = [rf'"(?:{pattern})"\s*:\s*[^\sn]']
        patterns += [
            rf'"{re.escape(path[-1])}"\s*:\s*{re.escape(_json(value))}' for path, value in signs if value is not None
        ]
        return re.compile("|".join(patterns).encode())

    @property
    def _usage_places(self) -> Iterator[str]:
        return (place for terms in self.usage.values() for places in terms for place in places)

    @cached_property
    def _terms(self) -> tuple[tuple[Places, tuple[Steps, ...]], ...]:
        return tuple((places, _paths(places)) for terms in self.usage.values() for places in terms)

    @cached_property
    def _request_model(self) -> tuple[Steps, ...]:
        return _paths(self.request_model)

    @cached_property
    def _response_model(self) -> tuple[Steps, ...]:
        return _paths(self.response_model)

    @cached_property
    def _content(self) -> tuple[Steps, ...]:
        return _paths(self.content)

    @cached_property
    def _error(self) -> tuple[Steps, ...]:
        return _paths(self.error)

    @cached_property
    def _finish(self) -> tuple[Steps, ...]:
        return _paths(self.finish)

    @cached_property
    def _running(self) -> Steps:
        return steps(self.running or "")


def _optional(place: str | None) -> Places:
    return () if place is None else (place,)


def _paths(places: Places) -> tuple[Steps, ...]:
    return tuple(steps(place) for place in places)


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


def _has_one(document: Document, signs: tuple[tuple[Steps, Value], ...]) -> bool:
    return any(
        value is not None if wanted is None else value == wanted
        for path, wanted in signs
        for value in values(document, path)
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _first_text(document: Document, paths: tuple[Steps, ...]) -> str | None:
    return next((name for path in paths for value in values(document, path) if (name := text(value))), None)
