"""Cohere's APIs: which report counts, and what tells the APIs apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from extproc import formats
from extproc.core.facts import Usage
from extproc.formats import cohere_chat, cohere_chat_v2, cohere_embed, cohere_rerank
from tests.documents import read, usage_of

BILLED = {"input_tokens": 7, "output_tokens": 115, "search_units": 1}
TOKENS = {"input_tokens": 69.0, "output_tokens": 116.0}


@pytest.mark.parametrize(
    ("path", "host", "expected"),
    [
        ("/v1/chat", "api.cohere.com", "chat"),
        ("/v1/chat", "production.api.cohere.ai", "chat"),
        ("/v2/chat", "api.cohere.com", "chat_v2"),
        ("/v2/chat", "gateway.test", "chat_v2"),
        ("/v1/embed", "api.cohere.com", "embed"),
        ("/cohere/v2/embed", "gateway.test", "embed"),
        ("/v1/rerank", "api.cohere.com", "rerank"),
        ("/v2/rerank", "api.cohere.com", "rerank"),
        ("/compatibility/v1/chat/completions", "api.cohere.ai", "chat_completions"),
        ("/compatibility/v1/embeddings", "api.cohere.ai", "embeddings"),
        ("/v1/chat", "gateway.test", None),
        ("/v1/tokenize", "api.cohere.com", None),
        ("/v2/chats", "api.cohere.com", None),
    ],
)
def test_paths(path: str, host: str, expected: str | None) -> None:
    """A path belongs to one API; the first version's chat only at Cohere's own host, and counting is no call."""
    claiming = [each.api for each in formats.FORMATS if each.claims("POST", path, host)]
    assert claiming == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("reason", "failed"),
    [
        ("COMPLETE", False),
        ("MAX_TOKENS", False),
        ("STOP_SEQUENCE", False),
        ("TOOL_CALL", False),
        ("ERROR_LIMIT", False),
        ("USER_CANCEL", False),
        ("ERROR", True),
        ("ERROR_TOXIC", True),
        ("TIMEOUT", True),
    ],
)
def test_reasons(reason: str, *, failed: bool) -> None:
    """An answer that was broken off is an error, in whole answers and in streams, and is not passed over undecoded."""
    for api, document in (
        (cohere_chat.FORMAT, {"finish_reason": reason, "text": ""}),
        (cohere_chat.FORMAT, {"event_type": "stream-end", "response": {"finish_reason": reason}}),
        (cohere_chat_v2.FORMAT, {"finish_reason": reason}),
        (cohere_chat_v2.FORMAT, {"type": "message-end", "delta": {"finish_reason": reason}}),
    ):
        assert api.has_error(read(api, document)) is failed
        assert api.has_news(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"tokens": TOKENS, "billed_units": BILLED}, Usage(69, 116, 185)),
        ({"tokens": TOKENS, "billed_units": BILLED, "cached_tokens": 64.0}, Usage(69, 116, 185, 64)),
        ({"tokens": None, "billed_units": BILLED}, Usage(7, 115, 122)),
        ({"billed_units": {"search_units": 1}}, Usage()),
        ({}, Usage()),
    ],
)
def test_tokens_before_billed_units(report: dict[str, Any], expected: Usage) -> None:
    """Tokens are taken where there are any, also as floats, else billed units; search units are no tokens."""
    for api, document in (
        (cohere_chat.FORMAT, {"meta": report}),
        (cohere_chat.FORMAT, {"response": {"meta": report}}),
        (cohere_chat_v2.FORMAT, {"usage": report}),
        (cohere_chat_v2.FORMAT, {"delta": {"usage": report}}),
        (cohere_embed.FORMAT, {"meta": report}),
        (cohere_rerank.FORMAT, {"meta": report}),
    ):
        assert usage_of(api, document) == expected
