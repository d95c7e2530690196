"""Which framing a body has: by its Content-Type, and where that says little, by its first bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from extproc.core.facts import Gap
from extproc.core.format import Format
from extproc.core.framing import EventStream, Framing, Json, JsonArray, Multipart, NdJson, Sse, boundary
from extproc.core.framing.protocol import BOM
from extproc.core.skim import Skimmer

_SSE = re.compile(rb"(?:data|event|id|retry)?:")  # a field, or a comment, which has no name
_JSON = re.compile(rb"\{|\[\s*(?:[{\[\]]|\Z)")  # an object, or an array of some; "[Music]" begins a transcript

BEGINNING = 8
"""Bytes that tell one framing from another: a BOM and the longest name of an event's field, with its colon, or less."""

LINE = 4 * 1024
"""Longest first line of documents in lines that are not labelled as such, in bytes. A stream begins with a token."""

KEPT = 64 * 1024
"""How much of a request is kept until it has ended, in bytes: of one that never does, the model may be in it."""

Stream = Callable[[int, Collection[str]], Framing]

_STREAMS: dict[str, Stream] = {
    "text/event-stream": Sse,
    "application/vnd.amazon.eventstream": lambda limit, _: EventStream(limit),
    "application/x-ndjson": NdJson,
    "application/ndjson": NdJson,
    "application/jsonl": NdJson,
    "application/x-jsonlines": NdJson,
    "application/stream+json": NdJson,
}
_ORDINARY = "application/json"
_MEDIA = ("audio/", "image/", "video/", "application/octet-stream")


class Nothing:
    """A body that has no documents: sound, pictures, plain text."""

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:  # noqa: ARG002 - the protocol's signature
        """Yield nothing."""
        return iter(())

    def end(self) -> Iterator[bytes | Gap]:
        """Yield nothing."""
        return iter(())


class Begun:
    """A JSON object that has not ended: the wanted members that have."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._skimmer = Skimmer(wanted)

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:
        """Yield nothing."""
        self._skimmer.feed(data)
        return iter(())

    def end(self) -> Iterator[bytes | Gap]:
        """Yield the members, as an object."""
        yield self._skimmer.document()


def of_request(api: Format, content_type: str, limit: int) -> Framing:
    """Return the framing of a request."""
    wanted = api.request.wanted
    return Multipart(limit, parts, wanted) if (parts := boundary(content_type)) else Json(limit, wanted)


def of_begun_request(api: Format, content_type: str, limit: int) -> Framing:
    """Return the framing of a request of which there is only the beginning."""
    wanted = api.request.wanted
    return Multipart(limit, parts, wanted) if (parts := boundary(content_type)) else Begun(wanted)


class Choice(NamedTuple):
    """How a body is read."""

    framing: Framing
    streaming: bool
    """It is a stream of events."""


class Response:
    """What a response says of itself in its headers, from which its framing is chosen when it begins."""

    def __init__(self, api: Format, content_type: str, limit: int, *, failed: bool) -> None:
        self._api = api
        self._kind = content_type.partition(";")[0].strip().lower()
        self._limit = limit
        self._failed = failed  # it has an error status

    @property
    def is_labelled_stream(self) -> bool:
        """Whether it says that it is a stream of events, and is not likely to be a mere error."""
        return self._kind in _STREAMS and not self._failed

    def choose(self, first: bytes, *, whole: bool) -> Choice | None:
        """Choose its framing by how its body begins, and by whether that is all; `None` if more bytes are needed."""
        if first.startswith(b"{") and self._kind == _ORDINARY and not self._api.lines:
            return Choice(Json(self._limit, self._api.response.wanted), streaming=False)
        start = first.removeprefix(BOM).lstrip()
        line, ended, _ = start.partition(b"\n")
        if not (whole or ended or len(first) >= (LINE if self._api.lines else BEGINNING)):
            return None
        wanted, is_json = self._api.response.wanted, _JSON.match(start) is not None
        stream = self._stream(start, line if ended else b"", is_json=is_json)
        if stream is not None:
            return Choice(stream(self._limit, wanted), streaming=True)
        in_words = (self._kind.startswith("text/") or self._api.words) and not self._failed and not is_json
        if in_words or self._kind.startswith(_MEDIA):
            return Choice(Nothing(), streaming=False)
        if self._api.array and start.startswith(b"["):
            return Choice(JsonArray(self._limit, wanted), streaming=not self._failed)
        return Choice(Json(self._limit, wanted), streaming=False)

    def _stream(self, start: bytes, line: bytes, *, is_json: bool) -> Stream | None:
        """Return the framing of a stream of events, unless it is none or one array; `line` is its first one."""
        labelled = _STREAMS.get(self._kind)
        # Some servers answer whoever asked for a stream with an error in JSON, and the label of a stream.
        if labelled is not None and not (is_json and (self._failed or labelled is Sse)):
            return labelled
        # By what it is, not by what Content-Type says: some servers label streams as plain text or not at all.
        # Errors are documents or plain words, which may begin with anything.
        if self._failed or self._kind.startswith(_MEDIA):
            return None
        if _SSE.match(start):
            return Sse
        return NdJson if self._api.lines and self._goes_on(line) else None

    def _goes_on(self, line: bytes) -> bool:
        """Tell whether a first line is an event with more to come: a document, but neither an answer nor an error."""
        event, api = self._api.response.read(line), self._api
        return event is not None and not (api.counts(event) or api.has_error(event) or api.is_last(event))
