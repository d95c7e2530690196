"""llama.cpp's native completion (https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md).

`/completion` and, of the same shape, `/infill`, both without a prefix only, as the words are common. Its `/completions`
is of that shape too, but has the path of OpenAI's (DeepSeek leaves `/v1` out), which it is taken for. `/v1` is OpenAI's
and Anthropic's, with `timings` added; `/embedding` reports no tokens. Counts are in every event, running ones until
`stop` is true.
"""

from __future__ import annotations

from extproc.core.format import Format

FORMAT = Format(
    provider="llamacpp",
    api="completion",
    operation="text_completion",
    path=r"/(?:completion|infill)/?",
    usage={
        # The whole prompt; timings.prompt_n is what of it had to be processed and timings.cache_n the rest.
        "input_tokens": (("tokens_evaluated",),),
        "output_tokens": (("tokens_predicted",),),
        # Not tokens_cached: that is what the cache holds afterwards, answer included.
        "cached_input_tokens": (("timings.cache_n",),),
    },
    content=("content",),
    last=(("stop", True),),
)
