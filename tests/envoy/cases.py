"""Exchanges of every kind, to be run through Envoy."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from extproc.demo.processes import Address, Envoy
from tests.envoy.client import HOST, as_message, ask, ask_by_http2, connected, post, request
from tests.envoy.message import Message, chunk, chunked, head
from tests.envoy.upstream import Call, Script, Upstream, answer

Ask = Callable[[Address, str], Awaitable[list[Message]]]
"""A client's part: from Envoy's address and a path to the responses."""


@dataclass(frozen=True)
class Case:
    """One exchange: what each end does, the status that the client sees, the facts in the log line."""

    ask: Ask
    script: Script
    status: str = "200"
    facts: tuple[object, ...] = (None, None, None, None)
    path: str = "/v1/chat/completions"


ASKED = json.dumps({"model": "qwen-turbo", "messages": [{"role": "user", "content": "Grüße"}]}).encode()
ASKED_FOR_STREAM = ASKED[:-1] + b', "stream": true, "stream_options": {"include_usage": true}}'
ANSWERED = json.dumps(
    {
        "model": "qwen-turbo-0919",
        "choices": [{"message": {"role": "assistant", "content": "Hello"}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
).encode()
FAILED = b'{"error": {"message": "You exceeded your current quota", "type": "insufficient_quota"}}'
EVENTS = (
    b'data: {"model":"qwen-turbo","choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}\n\n',
    b'data: {"model":"qwen-turbo","choices":[{"delta":{"content":"Hel"}}],"usage":null}\n\n',
    b'data: {"model":"qwen-turbo","choices":[{"delta":{"content":"lo"}}],"usage":null}\n\n',
    b'data: {"model":"qwen-turbo","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7}}\n\n',
    b"data: [DONE]\n\n",
)
REPORTED = ("qwen-turbo", 11, 7, "reported")
MISSING = ("qwen-turbo", None, None, "missing")
NAMELESS = (None, None, None, "missing")

FILLER = b"All work and no play makes a long prompt. " * (20 * 1024 * 1024 // 42)
LONG_MODEL_FIRST = b'{"model": "qwen-turbo", "prompt": "%b"}' % FILLER
LONG_MODEL_LAST = b'{"prompt": "%b", "model": "qwen-turbo"}' % FILLER
LONG_ANSWERED = b'{"choices": [{"text": "%b"}], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}' % FILLER
LONG_PIECES = [LONG_ANSWERED[start : start + 1024 * 1024] for start in range(0, len(LONG_ANSWERED), 1024 * 1024)]

COMMON = (
    "Date: Thu, 01 Oct 2026 10:00:00 GMT",
    "Server: tengine",
    "X-Request-Cost: 1",
    "Set-Cookie: a=1",
    "Set-Cookie: b",
)
JSON = (*COMMON, "Content-Type: application/json")
SSE = (*COMMON, "Content-Type: text/event-stream")
CHUNKED = "Transfer-Encoding: chunked"


def whole(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    """Return a response with a Content-Length."""
    return head(f"HTTP/1.1 {status}", *(lines or JSON), f"Content-Length: {len(body)}") + body


def sends(*pieces: bytes, line: str = "POST {} HTTP/1.1", method: str = "POST") -> Ask:
    """Send these bytes behind a request line and a Host; read the response."""

    async def client(address: Address, path: str) -> list[Message]:
        first = f"{line.format(path)}\r\nHost: {HOST}\r\n".encode()
        return [await ask(address, first, *pieces, method=method)]

    return client


def posts(body: bytes = ASKED, *headers: str) -> Ask:
    """Post JSON with a Content-Length; read the response."""

    async def client(address: Address, path: str) -> list[Message]:
        return [await ask(address, post(path, body, *headers))]

    return client


async def one_by_one(call: Call, received: asyncio.Semaphore) -> None:
    """Send each event when the one before it has been received."""
    await call.request.all()
    await call.send(head("HTTP/1.1 200 OK", *SSE, CHUNKED))
    for event in EVENTS:
        await call.send(chunk(event))
        await received.acquire()
    await call.send(chunked())


def event_by_event() -> Case:
    """Each event is sent when the client has the one before it."""
    received = asyncio.Semaphore(0)

    async def upstream(call: Call) -> None:
        await one_by_one(call, received)

    async def client(address: Address, path: str) -> list[Message]:
        async with connected(address) as connection:
            await connection.send(post(path, ASKED_FOR_STREAM))
            response = connection.response()
            for event in EVENTS:
                await response.body(event)
                received.release()
            return [await response.all()]

    return Case(client, upstream, facts=REPORTED)


def event_by_event_over_http2() -> Case:
    """As above, with an HTTP/2 client."""
    received = asyncio.Semaphore(0)

    async def upstream(call: Call) -> None:
        await one_by_one(call, received)

    async def client(address: Address, path: str) -> list[Message]:
        async for response in ask_by_http2(address, path, ASKED_FOR_STREAM):
            body = []
            async for piece in response.aiter_raw():
                body.append(piece)
                received.release()
        return [as_message(response, body)]

    return Case(client, upstream, facts=REPORTED)


def part_by_part() -> Case:
    """Each part of the request is sent when the upstream has the one before it."""
    received = asyncio.Semaphore(0)
    parts = [ASKED[:20], ASKED[20:40], ASKED[40:]]

    async def upstream(call: Call) -> None:
        for part in parts:
            await call.request.body(part)
            received.release()
        await answer(whole(ANSWERED))(call)

    async def client(address: Address, path: str) -> list[Message]:
        async with connected(address) as connection:
            await connection.send(request(path, None, "content-type: application/json", CHUNKED))
            for part in parts:
                await connection.send(chunk(part))
                await received.acquire()
            await connection.send(chunked())
            return [await connection.response().all()]

    return Case(client, upstream, facts=REPORTED)


def over_http2(body: bytes, response: bytes, *, in_parts: bool = False) -> Case:
    """Ask by HTTP/2, with a Content-Length or without."""

    async def parts() -> AsyncIterator[bytes]:
        yield body[:20]
        yield body[20:]

    async def client(address: Address, path: str) -> list[Message]:
        async for found in ask_by_http2(address, path, parts() if in_parts else body):
            received = [piece async for piece in found.aiter_raw()]
        return [as_message(found, received)]

    return Case(client, answer(response), facts=REPORTED)


def continues() -> Case:
    """Send the body when the other side says so."""

    async def client(address: Address, path: str) -> list[Message]:
        async with connected(address) as connection:
            asked = post(path, ASKED, "Expect: 100-continue")
            await connection.send(asked.removesuffix(ASKED))
            response = connection.response()
            message = await response.until(lambda message: message.informational)
            assert [status for status, _ in message.informational] == ["100"]
            await connection.send(ASKED)
            return [await response.all()]

    return Case(client, answer(whole(ANSWERED)), facts=REPORTED)


def cut_short(response: bytes, *, reset: bool) -> Case:
    """Let the upstream go away in the middle of its answer."""
    received = asyncio.Event()

    async def upstream(call: Call) -> None:
        await call.request.all()
        await call.send(response)
        await received.wait()
        if reset:
            call.reset()
        else:
            call.close()

    async def client(address: Address, path: str) -> list[Message]:
        async with connected(address) as connection:
            await connection.send(post(path, ASKED))
            incoming = connection.response()
            await incoming.until(lambda message: message.body)
            received.set()
            return [await incoming.all()]

    return Case(client, upstream, facts=MISSING)


def refused_early() -> Case:
    """Answer before the request is whole; the client stops sending."""
    first, rest = ASKED[:40], ASKED[40:]

    async def upstream(call: Call) -> None:
        await call.request.body(first)
        await call.send(whole(FAILED, *JSON, "Connection: close", status="413 Content Too Large"))
        call.close()

    async def client(address: Address, path: str) -> list[Message]:
        async with connected(address) as connection:
            await connection.send(post(path, ASKED).removesuffix(rest))
            return [await connection.response().all()]

    return Case(client, upstream, status="413", facts=MISSING)


def in_a_row(*, pipelined: bool) -> Case:
    """Three requests on one connection; the second one is not for us."""

    async def client(address: Address, path: str) -> list[Message]:
        asked = [post(path, ASKED), request("/health", None, method="GET"), post(path + "?again", ASKED)]
        messages, before = [], None
        async with connected(address) as connection:
            if pipelined:
                await connection.send(b"".join(asked))
            for data in asked:
                if not pipelined:
                    await connection.send(data)
                before = connection.response(after=before)
                messages.append(await before.all())
        return messages

    return Case(client, answer(whole(ANSWERED)), facts=REPORTED)


STREAM = head("HTTP/1.1 200 OK", *SSE, CHUNKED) + chunked(*EVENTS)
TRAILERS = b"x-checksum: 900150983cd24fb0\r\nx-cost: 1\r\n"

CASES: dict[str, Callable[[], Case]] = {
    "json": lambda: Case(posts(), answer(whole(ANSWERED)), facts=REPORTED),
    "headers": lambda: Case(
        posts(ASKED, "Authorization: Bearer sk-1", "X-Twice: a", "x-twice: b", "X-Empty:", "X-Latin: caf\xe9"),
        answer(whole(ANSWERED, *JSON, "X-Empty:", "X-Latin: caf\xe9", "x-envoy-attempt-count: 9")),
        facts=REPORTED,
    ),
    "gzip": lambda: Case(
        posts(ASKED, "Accept-Encoding: gzip"),
        answer(whole(gzip.compress(ANSWERED, mtime=0), *JSON, "Content-Encoding: gzip", "Vary: Accept-Encoding")),
        facts=REPORTED,
    ),
    "sse": lambda: Case(posts(ASKED_FOR_STREAM), answer(STREAM), facts=REPORTED),
    "sse-event-by-event": event_by_event,
    "sse-until-close": lambda: Case(
        posts(ASKED_FOR_STREAM),
        closing(answer(head("HTTP/1.1 200 OK", *SSE, "Connection: close"), *EVENTS)),
        facts=REPORTED,
    ),
    "request-part-by-part": part_by_part,
    "http2": lambda: over_http2(ASKED, whole(ANSWERED)),
    "http2-in-parts": lambda: over_http2(ASKED, whole(ANSWERED), in_parts=True),
    "http2-trailers": lambda: over_http2(
        ASKED, head("HTTP/1.1 200 OK", *JSON, CHUNKED) + chunked(ANSWERED, trailers=TRAILERS)
    ),
    "http2-sse-event-by-event": event_by_event_over_http2,
    "get": lambda: Case(
        sends(b"Accept: */*\r\n\r\n", line="GET {} HTTP/1.1", method="GET"), answer(whole(ANSWERED)), path="/v1/models"
    ),
    "head": lambda: Case(
        sends(b"\r\n", line="HEAD {} HTTP/1.1", method="HEAD"), answer(whole(ANSWERED).removesuffix(ANSWERED))
    ),
    "other-path": lambda: Case(posts(), answer(whole(ANSWERED)), path="/v1/files"),
    "other-path-sse": lambda: Case(posts(), answer(STREAM), path="/v1/files"),
    "other-path-trailers": lambda: Case(
        sends(b"%b\r\n\r\n" % CHUNKED.encode(), chunked(ASKED, trailers=TRAILERS)),
        answer(head("HTTP/1.1 200 OK", *JSON, CHUNKED) + chunked(ANSWERED, trailers=TRAILERS)),
        path="/v1/files",
    ),
    "expect-100": continues,
    "early-hints": lambda: Case(
        posts(),
        answer(head("HTTP/1.1 103 Early Hints", "Link: </a.css>; rel=preload"), whole(ANSWERED)),
        facts=REPORTED,
    ),
    "empty-request": lambda: Case(posts(b""), answer(whole(FAILED, status="400 Bad Request")), "400", NAMELESS),
    "no-request-body": lambda: Case(sends(b"\r\n"), answer(whole(FAILED, status="400 Bad Request")), "400", NAMELESS),
    "empty-chunked-request": lambda: Case(
        sends(b"%b\r\n\r\n" % CHUNKED.encode(), chunked()), answer(whole(b"")), facts=NAMELESS
    ),
    "204": lambda: Case(posts(), answer(head("HTTP/1.1 204 No Content", *COMMON)), "204", MISSING),
    "empty-response": lambda: Case(posts(), answer(whole(b"")), facts=MISSING),
    "empty-chunked-response": lambda: Case(
        posts(), answer(head("HTTP/1.1 200 OK", *JSON, CHUNKED), chunked()), facts=MISSING
    ),
    "429": lambda: Case(posts(), answer(whole(FAILED, status="429 Too Many Requests")), "429", MISSING),
    "500": lambda: Case(posts(), answer(whole(FAILED, status="500 Oops")), "500", MISSING),
    "broken-json": lambda: Case(posts(b'{"model": '), answer(whole(b'{"usage": {"prompt_tokens": ')), facts=NAMELESS),
    "no-json": lambda: Case(posts(bytes(range(256))), answer(whole(bytes(range(255, -1, -1)))), facts=NAMELESS),
    "trailers": lambda: Case(
        sends(b"%b\r\nTrailer: x-checksum\r\n\r\n" % CHUNKED.encode(), chunked(ASKED, trailers=TRAILERS)),
        answer(head("HTTP/1.1 200 OK", *JSON, CHUNKED, "Trailer: x-checksum") + chunked(ANSWERED, trailers=TRAILERS)),
        facts=REPORTED,
    ),
    "20-mb-request-model-first": lambda: Case(posts(LONG_MODEL_FIRST), answer(whole(ANSWERED)), facts=REPORTED),
    "20-mb-request-model-last": lambda: Case(posts(LONG_MODEL_LAST), answer(whole(ANSWERED)), facts=REPORTED),
    "20-mb-response": lambda: Case(posts(), answer(whole(LONG_ANSWERED)), facts=REPORTED),
    "20-mb-chunked": lambda: Case(
        sends(b"%b\r\n\r\n" % CHUNKED.encode(), chunk(LONG_MODEL_LAST), chunked()),
        answer(head("HTTP/1.1 200 OK", *JSON, CHUNKED), *map(chunk, LONG_PIECES), chunked()),
        facts=REPORTED,
    ),
    "no-answer": lambda: Case(posts(), closing(answer()), "503", MISSING),
    "cut-short": lambda: cut_short(whole(ANSWERED)[:-10], reset=False),
    "cut-short-by-reset": lambda: cut_short(whole(ANSWERED)[:-10], reset=True),
    "cut-short-chunked": lambda: cut_short(STREAM[: STREAM.index(b"lo")], reset=False),
    "refused-early": refused_early,
    "keep-alive": lambda: in_a_row(pipelined=False),
    "pipelined": lambda: in_a_row(pipelined=True),
    "connection-close": lambda: Case(posts(ASKED, "Connection: close"), answer(whole(ANSWERED)), facts=REPORTED),
}


def closing(script: Script) -> Script:
    """Close the connection after the answer."""

    async def closing_script(call: Call) -> None:
        await script(call)
        call.close()

    return closing_script


async def seen(running: Envoy, upstream: Upstream, name: str, path: str) -> list[dict[str, object]]:
    """Run a case; return what upstream and client saw."""
    case = CASES[name]()
    upstream.begin(case.script)
    messages = await case.ask(running.addresses["outbound"], path)
    assert messages[0].start == case.status
    return [message.seen for message in (*upstream.requests, *messages)]


class Steps:
    """An upstream that sends what the test gives it, when the test gives it."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def script(self, call: Call) -> None:
        """Wait for the whole request; then do as told."""
        await call.request.all()
        while (piece := await self._pieces.get()) is not None:
            await call.send(piece)

    def send(self, *pieces: bytes) -> None:
        """Send these bytes."""
        for piece in pieces:
            self._pieces.put_nowait(piece)

    def done(self) -> None:
        """Be ready for the next request."""
        self._pieces.put_nowait(None)
