"""Anthropic Messages on Vertex AI (https://cloud.google.com/vertex-ai/generative-ai/docs/partner-models/claude).

The model is in the path, and not in the request's body. Errors are Google's, from `streamRawPredict` in an array.
Tokens are counted at the path of a model named `count-tokens`, which is no call:
https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/partner-models/claude/count-tokens
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._anthropic import CONTENT, FINISH, LAST, RESPONSE_MODEL, USAGE

FORMAT = Format(
    provider="gcp.vertex_ai",
    api="anthropic_messages",
    operation="chat",
    path=r"(?:/.*)?/publishers/anthropic/models/(?!count-tokens:)(?P<model>[^/:]+):(?:rawPredict|streamRawPredict)",
    usage=USAGE,
    response_model=RESPONSE_MODEL,
    content=CONTENT,
    finish=FINISH,
    last=LAST,
    array=True,
)
