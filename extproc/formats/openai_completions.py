"""OpenAI completions, the older text API (https://platform.openai.com/docs/api-reference/completions)."""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._openai import DONE, FINISH, RUNNING, USAGE, path

FORMAT = Format(
    provider="openai",
    api="completions",
    operation="text_completion",
    path=path("(?<!/chat/)completions"),
    usage=USAGE,
    content=("choices[].text",),
    running=RUNNING,
    finish=FINISH,
    done=DONE,
)
