"""What they are measured with: requests, on so many connections, and what the upstream answers (see upstream.c)."""

from __future__ import annotations

import json
from dataclasses import dataclass

PATH = "/v1/chat/completions"
HOST = "dashscope.aliyuncs.com"  # of which envoy.yaml has the filter turned on

PROMPT_TOKENS = 9
"""Of every answer."""

_WORDS = "The quick brown fox jumps over the lazy dog. "


@dataclass(frozen=True)
class Load:
    """Requests sent in turn on connections that are kept; each sends its next one when the one before is answered."""

    name: str
    text: str
    requests: tuple[bytes, ...]
    connections: int
    calls: float = 1.0
    """The part of the requests that are calls to a model."""


@dataclass(frozen=True)
class Streams:
    """Answers that stream at the same time, each at a steady pace."""

    name: str
    text: str
    request: bytes
    number: int
    events_per_second: int
    """Of one stream."""


def ask(query: str = "", *, prompt: int = 30, stream: bool = False, path: str = PATH) -> bytes:
    """Return a request as OpenAI's SDK writes it, with a prompt of so many bytes."""
    content = (_WORDS * (prompt // len(_WORDS) + 1))[:prompt]
    document: dict[str, object] = {"messages": [{"role": "user", "content": content}], "model": "gpt-4o"}
    if stream:
        document |= {"stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(document, separators=(",", ":")).encode()
    head = (
        f"POST {path}{query and '?'}{query} HTTP/1.1",
        f"Host: {HOST}",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
        "Accept: application/json",
        "Content-Type: application/json",
        "User-Agent: OpenAI/Python 2.0.0",
        "X-Stainless-Lang: python",
        "X-Stainless-Package-Version: 2.0.0",
        "X-Stainless-Runtime: CPython",
        "Authorization: Bearer sk-0123456789abcdef0123456789abcdef",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


KB, MB = 1024, 1024 * 1024
SMALL = ask()
SSE = ask("events=200&every=2", stream=True)
SLOW = ask("events=1000000&every=50", stream=True)
_KINDS = (
    *[SMALL] * 9,
    *[ask(prompt=10 * KB)] * 4,
    ask(prompt=100 * KB),
    ask(f"size={MB}"),
    *[ask("events=200", stream=True)] * 3,
    *[ask(path="/v1/files")] * 2,
)
# Not one kind after the other: 7 and their number have no common divisor.
MIX = tuple(_KINDS[number * 7 % len(_KINDS)] for number in range(len(_KINDS)))

LOADS: tuple[Load | Streams, ...] = (
    Load("small", "small JSON, 32 connections", (SMALL,), 32),
    Load("small-1", "small JSON, one connection", (SMALL,), 1),
    Load("prompt", "prompts of 100 KB, 8 connections", (ask(prompt=100 * KB),), 8),
    Load("answer", "answers of 1 MB, 8 connections", (ask(f"size={MB}"),), 8),
    Load("sse", "streams of 200 events, one each 2 ms, 8 connections", (SSE,), 8),
    Streams("slow", "1,000 streams at a time, 20 events a second each", SLOW, 1000, 20),
    Load("mix", "a mix of all of these, 32 connections", MIX, 32, calls=0.9),
    Load("small-8", "small JSON, 8 connections", (SMALL,), 8),
    Load("small-128", "small JSON, 128 connections", (SMALL,), 128),
    Load("prompt-10k", "prompts of 10 KB, 8 connections", (ask(prompt=10 * KB),), 8),
    Load("prompt-1m", "prompts of 1 MB, 8 connections", (ask(prompt=MB),), 8),
    Load("answer-10k", "answers of 10 KB, 8 connections", (ask(f"size={10 * KB}"),), 8),
    Load("answer-100k", "answers of 100 KB, 8 connections", (ask(f"size={100 * KB}"),), 8),
)

QUICK = ("small", "small-1", "prompt", "answer", "sse", "slow", "mix")

GROWTHS = {
    "connections": {"1": "small-1", "8": "small-8", "32": "small", "128": "small-128"},
    "the size of the prompt": {"30 B": "small-8", "10 KB": "prompt-10k", "100 KB": "prompt", "1 MB": "prompt-1m"},
    "the size of the answer": {
        "0.5 KB": "small-8",
        "10 KB": "answer-10k",
        "100 KB": "answer-100k",
        "1 MB": "answer",
    },
}
"""Loads that differ in one thing, by what it is."""
