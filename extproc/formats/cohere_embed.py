"""Cohere's embeddings, versions 1 (https://docs.cohere.com/v1/reference/embed) and 2.

https://docs.cohere.com/reference/embed

Never a stream. Only billed units are reported; the text's are input_tokens.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._cohere import PROVIDER, usage

FORMAT = Format(
    provider=PROVIDER,
    api="embed",
    operation="embeddings",
    path="(?:/.*)?/v[12]/embed/?",
    usage=usage("meta"),
    response_model=(),
)
