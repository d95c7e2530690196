"""Azure OpenAI audio translations."""

from __future__ import annotations

from extproc.formats._azure import deployed
from extproc.formats.openai_audio_translations import FORMAT as OPENAI

FORMAT = deployed(OPENAI, "audio/translations")
