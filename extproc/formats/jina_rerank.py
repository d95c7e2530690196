"""Rankings as Jina serves them (https://api.jina.ai/redoc#tag/rerank), and so do others.

vLLM (https://docs.vllm.ai/en/latest/serving/openai_compatible_server/; its `/score` and `/pooling` are not claimed),
llama.cpp (https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md) and LocalAI do. Cohere's rankings
have the same path and are told by the host. A gateway's own host may stand before either, so Cohere's places are looked
at too.
"""

from __future__ import annotations

from extproc.core.format import Format

FORMAT = Format(
    provider="jina",
    api="rerank",
    operation="rerank",
    path=r"(?:/.*)?/rerank(?:ing)?/?",
    host=r"(?!.*cohere\.(?:com|ai)$).*",
    usage={
        # A ranking has no output: the total is the input.
        "input_tokens": (
            ("usage.prompt_tokens", "usage.total_tokens", "meta.tokens.input_tokens", "meta.billed_units.input_tokens"),
        ),
        "total_tokens": (("usage.total_tokens",),),
    },
)
