"""A provider that answers as DashScope does in its OpenAI-compatible mode.

Request and response: https://help.aliyun.com/zh/model-studio/qwen-api-reference. A token here is a word; the counts are
made of what was asked and answered.

    python -m extproc.demo.provider --listen 127.0.0.1:18080
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

from aiohttp import web

PATH = "/compatible-mode/v1/chat/completions"
DEFAULT_MODEL = "qwen-plus"
EVENT_SECONDS = 0.05

Json = dict[str, Any]


def application() -> web.Application:
    """Return the provider as an aiohttp application."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post(PATH, _chat)
    app.router.add_get("/compatible-mode/v1/models", _models)
    return app


async def _models(_request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": DEFAULT_MODEL, "object": "model"}]})


async def _chat(request: web.Request) -> web.StreamResponse:
    try:
        asked = await request.json()
        question = " ".join(_text(message["content"]) for message in asked["messages"])
    except (ValueError, KeyError, TypeError):
        error = {"message": "Invalid request body.", "type": "invalid_request_error", "param": None, "code": None}
        return web.json_response({"error": error}, status=400)
    head = {
        "id": f"chatcmpl-{uuid4()}",
        "created": int(time.time()),
        "model": asked.get("model") or DEFAULT_MODEL,
        "system_fingerprint": None,
    }
    words = f"You asked: {question}".split()
    spent = len(question.split())
    usage = {"prompt_tokens": spent, "completion_tokens": len(words), "total_tokens": spent + len(words)}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": " ".join(words)}
        choice = {"message": message, "finish_reason": "stop", "index": 0, "logprobs": None}
        return web.json_response({"choices": [choice], "object": "chat.completion", "usage": usage, **head})
    wants_usage = (asked.get("stream_options") or {}).get("include_usage")
    response = web.StreamResponse(headers={"content-type": "text/event-stream;charset=UTF-8"})
    await response.prepare(request)
    with suppress(ConnectionResetError):  # the client went away
        for event in _events(words, usage if wants_usage else None):
            await response.write(b"data: " + json.dumps({**event, **head}).encode() + b"\n\n")
            await asyncio.sleep(EVENT_SECONDS)
        await response.write(b"data: [DONE]\n\n")
    return response


def _events(words: list[str], usage: Json | None) -> Iterator[Json]:
    def event(delta: Json, finish_reason: str | None = None) -> Json:
        choice = {"finish_reason": finish_reason, "logprobs": None, "delta": delta, "index": 0}
        return {"choices": [choice], "object": "chat.completion.chunk", "usage": None}

    yield event({"role": "assistant", "content": ""})
    for word in words:
        yield event({"content": f"{word} "})
    yield event({"content": ""}, "stop")
    if usage is not None:
        yield {"choices": [], "object": "chat.completion.chunk", "usage": usage}


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    return (
        " ".join(part.get("text", "") for part in content if isinstance(part, dict))
        if isinstance(content, list)
        else ""
    )


def main() -> None:
    """Run the provider by itself, until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m extproc.demo.provider", description="A mock provider.")
    parser.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:18080", help="default: %(default)s")
    host, _, port = parser.parse_args().listen.rpartition(":")
    web.run_app(application(), host=host, port=int(port), shutdown_timeout=1)


if __name__ == "__main__":
    main()
