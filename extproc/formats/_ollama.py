"""What Ollama's generating endpoints have in common (https://github.com/ollama/ollama/blob/main/docs/api.md).

A stream is what they answer unless the request says `"stream": false`: JSON objects, one a line, the last of which has
`done` and the counts (https://github.com/ollama/ollama/blob/main/docs/api/streaming.mdx). An error in the middle of a
stream is an object with `error` (https://github.com/ollama/ollama/blob/main/docs/api/errors.mdx). Durations are in
nanoseconds and of no interest here.
"""

from __future__ import annotations

from extproc.core.format import Sum

# Cached tokens are a part of prompt_eval_count (https://github.com/ollama/ollama/pull/17943). Until July 2024 servers
# left it out of the answer to a cached prompt (https://github.com/ollama/ollama/issues/2068): then the input is not
# known.
INPUT: Sum = (("prompt_eval_count",),)
USAGE: dict[str, Sum] = {
    "input_tokens": INPUT,
    "output_tokens": (("eval_count",),),
    "cached_input_tokens": (("prompt_eval_cached_count",),),
}

LAST = (("done", True),)


def path(name: str) -> str:
    """Return the pattern of an endpoint behind any prefix."""
    return rf"(?:/.*)?/api/{name}/?"
