"""OpenAI moderations (https://platform.openai.com/docs/api-reference/moderations): a model, and no counts at all."""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._openai import USAGE, path

FORMAT = Format(
    provider="openai",
    api="moderations",
    operation="moderation",
    path=path("moderations"),
    usage={name: USAGE[name] for name in ("input_tokens", "total_tokens")},  # others in this shape report them
)
