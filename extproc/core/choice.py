"""Which framing a body has: by its Content-Type, and where that says little, by its first byte."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from extproc.core.body import Choose
from extproc.core.facts import Gap
from extproc.core.format import Format
from extproc.core.framing import EventStream, Framing, Json, JsonArray, Multipart, NdJson, Sse, boundary

_SSE_FIRST_BYTES = b":deir"  # a comment, data, event, id, retry; no JSON document begins with one of them
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
    """A body that has no documents: sound, pictures."""

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


def of_stream(api: Format, content_type: str, limit: int) -> Framing | None:
    """Return the framing of a response that says it is a stream of events."""
    framing = _STREAMS.get(_media_type(content_type))
    return framing(limit, api.response.wanted) if framing else None


def of_response(api: Format, content_type: str, first: bytes, limit: int, *, failed: bool) -> Choice:
    """Choose the framing of a response by its first bytes; `failed`: it has an error status."""
    if _media_type(content_type).startswith(_MEDIA):
        return Choice(Nothing(), streaming=False)
    # By what it is, not by what Content-Type says: some servers label streams as plain text or not at all.
    # Errors are documents or plain words, which may begin with any letter.
    if first[0] in _SSE_FIRST_BYTES and not failed:
        return Choice(Sse(limit, api.response.wanted), streaming=True)
    if api.array and first.startswith(b"["):
        return Choice(JsonArray(limit, api.response.wanted), streaming=not failed)
    return Choice(Json(limit, api.response.wanted), streaming=False)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
