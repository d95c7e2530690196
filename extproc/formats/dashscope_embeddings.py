"""DashScope embeddings, native.

Text: https://help.aliyun.com/zh/model-studio/text-embedding-synchronous-api
Multimodal: https://help.aliyun.com/zh/model-studio/multimodal-embedding-api-reference

Text embeddings report the total only. Of the multimodal models some leave the tokens of pictures and video out of
`input_tokens` and report them next to it as `image_tokens`; the others have no `image_tokens` there.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._dashscope import ERROR

FORMAT = Format(
    provider="dashscope",
    api="embeddings",
    operation="embeddings",
    path=r"(?:/.*)?/api/v1/services/embeddings/(?:text|multimodal)-embedding/(?:text|multimodal)-embedding/?",
    usage={
        "input_tokens": (("usage.input_tokens", "usage.total_tokens"), ("usage.image_tokens",)),
        "output_tokens": (("usage.output_tokens",),),
        "total_tokens": (("usage.total_tokens",),),
    },
    error=ERROR,
)
