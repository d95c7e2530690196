"""Azure OpenAI embeddings."""

from __future__ import annotations

from extproc.formats._azure import deployed
from extproc.formats.openai_embeddings import FORMAT as OPENAI

FORMAT = deployed(OPENAI, "embeddings")
