"""Azure OpenAI completions, the older text API."""

from __future__ import annotations

from extproc.formats._azure import deployed
from extproc.formats.openai_completions import FORMAT as OPENAI

FORMAT = deployed(OPENAI, "completions")
