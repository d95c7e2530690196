"""DashScope text rerank (https://help.aliyun.com/zh/model-studio/text-rerank-api).

Native, and in the shape of qwen3-rerank, which has a path of its own. All tokens are input tokens.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._dashscope import ERROR

FORMAT = Format(
    provider="dashscope",
    api="rerank",
    operation="rerank",
    path=r"(?:/.*)?/api/v1/services/rerank/text-rerank/text-rerank/?|(?:/.*)?/compatible-api/v1/reranks/?",
    usage={
        "input_tokens": (("usage.input_tokens", "usage.prompt_tokens", "usage.total_tokens"),),
        "total_tokens": (("usage.total_tokens",),),
    },
    error=(*ERROR, "error"),
)
