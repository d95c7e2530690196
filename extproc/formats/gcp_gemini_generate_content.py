"""Gemini API, generateContent and streamGenerateContent (https://ai.google.dev/api/generate-content).

The model is in the path, also a tuned one. With `alt=sse` a stream has events, whose lines end with CRLF; else it is
one JSON array that grows. A prompt that is blocked has no candidates, and is a complete answer.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._gemini import GENERATE, OPERATION, content, finish, model_path, usage

FORMAT = Format(
    provider="gcp.gemini",
    api="generate_content",
    operation=OPERATION,
    path=model_path(GENERATE),
    usage=usage(),
    response_model=("modelVersion",),
    content=content(),
    running="candidates[]",
    finish=finish(),
    array=True,
)
