"""OpenAI audio translations (https://platform.openai.com/docs/api-reference/audio/createTranslation).

As transcriptions, but never a stream.
"""

from __future__ import annotations

from dataclasses import replace

from extproc.formats._openai import path
from extproc.formats.openai_audio_transcriptions import FORMAT as TRANSCRIPTIONS

FORMAT = replace(
    TRANSCRIPTIONS,
    api="audio_translations",
    operation="translation",
    path=path("audio/translations"),
    content=(),
    done=None,
    last=(),
)
