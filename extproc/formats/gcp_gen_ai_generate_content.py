"""Google's Cloud Code Assist, which gemini-cli and code editors call.

It is not documented. Google's own client shows it: the model is in the request's body, and the Gemini API's answer is
wrapped in `response` (https://github.com/google-gemini/gemini-cli/blob/main/packages/core/src/code_assist/converter.ts).
It serves models of others too, in the same shape. Errors are not wrapped; those of a stream come in an array.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._gemini import GENERATE, OPERATION, content, finish, usage

_WITHIN = "response."

FORMAT = Format(
    provider="gcp.gen_ai",
    api="generate_content",
    operation=OPERATION,
    path=rf"(?:/.*)?/v1internal:{GENERATE}",
    usage=usage(_WITHIN),
    response_model=("response.modelVersion",),
    content=content(_WITHIN),
    running="response.candidates[]",
    finish=finish(_WITHIN),
    array=True,
)
