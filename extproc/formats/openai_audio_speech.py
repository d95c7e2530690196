"""OpenAI speech (https://platform.openai.com/docs/api-reference/audio/createSpeech).

The answer is sound, which reports nothing, or with `stream_format: sse` events, of which the last has the counts:
https://platform.openai.com/docs/api-reference/audio/speech-audio-done-event
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._openai import DONE, path, tokens

FORMAT = Format(
    provider="openai",
    api="audio_speech",
    operation="speech",
    path=path("audio/speech"),
    usage=tokens("usage"),
    content=("audio",),
    done=DONE,
    last=(("type", "speech.audio.done"),),
)
