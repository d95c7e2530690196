"""Azure OpenAI chat completions.

The first event of a stream has the filter results of the prompt, no choices and an empty model: it is not the last one.
"""

from __future__ import annotations

from extproc.formats._azure import deployed
from extproc.formats.openai_chat_completions import FORMAT as OPENAI

FORMAT = deployed(OPENAI, "chat/completions")
