"""Cohere's rankings, versions 1 (https://docs.cohere.com/v1/reference/rerank) and 2.

https://docs.cohere.com/reference/rerank

Never a stream. Search units are billed, which are no tokens; tokens are counted where they are reported. Others serve
rankings at the same path: `jina_rerank` is theirs, and this host is left out there.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._cohere import PROVIDER, usage

FORMAT = Format(
    provider=PROVIDER,
    api="rerank",
    operation="rerank",
    path=r"(?:/.*)?/rerank/?",
    host=r".*cohere\.(?:com|ai)",
    usage=usage("meta"),
    response_model=(),
)
