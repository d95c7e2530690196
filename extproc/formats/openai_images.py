"""OpenAI images: generations, edits and variations (https://platform.openai.com/docs/api-reference/images).

GPT image models report tokens, DALL-E does not. Edits and variations are posted as forms. The last event of a stream
(https://platform.openai.com/docs/api-reference/images-streaming) has the counts next to the picture.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._openai import DONE, path, tokens

FORMAT = Format(
    provider="openai",
    api="images",
    operation="image_generation",
    path=path("images/(?:generations|edits|variations)"),
    usage=tokens("usage"),
    content=("b64_json", "created_at"),  # a picture may be too large to be held; its time is not
    done=DONE,
    last=(("type", "image_generation.completed"), ("type", "image_edit.completed")),
)
