"""OpenAI audio transcriptions (https://platform.openai.com/docs/api-reference/audio/createTranscription).

The model is a field of a form. Models that are billed by time report seconds, which are no tokens. A transcript may
also be plain text (`response_format`), which reports nothing.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._openai import DONE, path, tokens

FORMAT = Format(
    provider="openai",
    api="audio_transcriptions",
    operation="transcription",
    path=path("audio/transcriptions"),
    usage=tokens("usage"),
    content=("delta",),
    done=DONE,
    last=(("type", "transcript.text.done"),),
    words=True,
)
