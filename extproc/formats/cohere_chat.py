"""Cohere's chat API, version 1 (https://docs.cohere.com/v1/reference/chat).

A stream is a document per line, as application/stream+json, or events if the client asks for them; the last one repeats
the whole answer in `response`. The model is the request's, if it names one. Many have a path like this one's: the host
must be Cohere's.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._cohere import PROVIDER, failed, usage

FORMAT = Format(
    provider=PROVIDER,
    api="chat",
    operation="chat",
    path="(?:/.*)?/v1/chat/?",
    host=r".*cohere\.(?:com|ai)",
    usage=usage("meta", "response.meta"),
    response_model=(),
    content=("text", "tool_calls", "tool_call_delta", "search_queries"),
    finish=("finish_reason",),
    last=(("event_type", "stream-end"),),
    lines=True,
    failed=(*failed("finish_reason"), *failed("response.finish_reason")),
)
