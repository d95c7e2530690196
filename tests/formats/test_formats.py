"""The table of formats."""

from __future__ import annotations

from dataclasses import fields

import pytest

from extproc import formats
from extproc.core.facts import Usage
from extproc.core.format import Format


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", "chat_completions"),
        ("/v1/chat/completions/", "chat_completions"),
        ("/chat/completions", "chat_completions"),
        ("/compatible-mode/v1/chat/completions", "chat_completions"),
        ("/openai/deployments/gpt/chat/completions", "chat_completions"),
        ("/v1/completions", "completions"),
        ("/serverless/v1/completions/", "completions"),
        ("/v1/embeddings", "embeddings"),
        ("/compatible-mode/v1/embeddings", "embeddings"),
        ("/embeddings", "embeddings"),
        ("/completions", "completions"),
        ("/my-chat/completions", "completions"),
        ("/v1/chat/completions/chatcmpl-1", None),
        ("/v1/chat", None),
        ("/v1/models", None),
        ("/v1/embeddingsandmore", None),
        ("/chat/completions-of-mine", None),
        ("/", None),
        ("", None),
    ],
)
def test_find(path: str, expected: str | None) -> None:
    """A path belongs to one API, with and without a prefix, or to none; only what is posted is a call."""
    found = formats.find("POST", path)
    assert (found.api if found else None) == expected
    assert formats.find("GET", path) is None


@pytest.mark.parametrize("each", formats.FORMATS, ids=lambda each: f"{each.provider}_{each.api}")
def test_usage(each: Format) -> None:
    """A format reports fields of `Usage`, and says where models are."""
    assert each.usage.keys() <= {field.name for field in fields(Usage)}
    assert each.request_model
    assert each.response_model
    assert "input_tokens" in each.usage


def test_names() -> None:
    """No two formats publish the same provider and API."""
    names = [(each.provider, each.api) for each in formats.FORMATS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", ["/v1" * 20_000, "/" * 60_000, "/chat/completions" * 3_000 + "x"])
def test_long_path(path: str) -> None:
    """A path of any length is looked at in no time worth speaking of: the time limit of the tests would end it."""
    assert formats.find("POST", path) is None
