"""Which framing a body has: by its Content-Type, and where that says little, by its first byte."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from extproc.core.body import Choose
from extproc.core.facts import Gap
from extproc.core.format import Format
from extproc.core.framing import EventStream, Framing, Json, JsonArray, Multipart, NdJson, Sse, boundary
from extproc.core.framing.protocol import BOM

_SSE = re.compile(rb"(?:data|event|id|retry)?:")  # a field, or a comment, which has no name
_STREAMS: dict[str, Callable[[int, Collection[str]], Framing]] = {
    "text/event-stream": Sse,
    "application/vnd.amazon.eventstream": lambda limit, _: EventStream(limit),
    "application/x-ndjson": NdJson,
    "application/ndjson": NdJson,
    "application/jsonl": NdJson,
    "application/x-jsonlines": NdJson,
    "application/stream+json": NdJson,
}
_MEDIA = ("audio/", "image/", "video/", "application/octet-stream")


class Nothing:
    """A body that has no documents: sound, pictures, plain text."""

    def feed(self, data: bytes) -> Iterator[bytes | Gap]:  # noqa: ARG002 - the protocol's signature
        """Yield nothing."""
        return iter(())

    def end(self) -> Iterator[bytes | Gap]:
        """Yield nothing."""
        return iter(())


class Choice(NamedTuple):
    """How a body is read."""

    framing: Framing
    streaming: bool
    """It is a stream of events."""


def of_request(api: Format, content_type: str, limit: int) -> Choose:
    """Return what chooses the framing of a request."""
    if parts := boundary(content_type):
        return lambda _: Multipart(limit, parts, api.request.wanted)
    return lambda _: Json(limit, api.request.wanted)


def is_stream(content_type: str) -> bool:
    """Tell whether a response says that it is a stream of events."""
    return _media_type(content_type) in _STREAMS


def of_response(api: Format, content_type: str, first: bytes, limit: int, *, failed: bool) -> Choice:
    """Choose the framing of a response by how it begins; `failed`: it has an error status."""
    kind, wanted, start = _media_type(content_type), api.response.wanted, first.removeprefix(BOM).lstrip()
    stream = _STREAMS.get(kind)
    # Some servers answer whoever asked for a stream with an error in JSON, and the label of a stream.
    if stream is not None and not (stream is Sse and start.startswith(b"{")):
        return Choice(stream(limit, wanted), streaming=True)
    # By what it is, not by what Content-Type says: some servers label streams as plain text or not at all.
    # Errors are documents or plain words, which may begin with anything.
    if _SSE.match(start) and not failed and not kind.startswith(_MEDIA):
        return Choice(Sse(limit, wanted), streaming=True)
    in_words = kind.startswith("text/") and not failed and not start.startswith((b"{", b"["))
    if in_words or kind.startswith(_MEDIA):
        return Choice(Nothing(), streaming=False)
    if api.array and start.startswith(b"["):
        return Choice(JsonArray(limit, wanted), streaming=not failed)
    return Choice(Json(limit, wanted), streaming=False)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
