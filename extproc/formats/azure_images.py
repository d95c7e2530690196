"""Azure OpenAI images."""

from __future__ import annotations

from extproc.formats._azure import deployed
from extproc.formats.openai_images import FORMAT as OPENAI

FORMAT = deployed(OPENAI, "images/(?:generations|edits)")
