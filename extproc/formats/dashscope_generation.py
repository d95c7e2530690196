"""DashScope text and multimodal generation, native.

https://www.alibabacloud.com/help/en/model-studio/qwen-api-via-dashscope

The model is in the request only. Every event of a stream has all counts so far. The tokens of pictures, sound and video
(`image_tokens` and the like) are among `input_tokens`.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._dashscope import ERROR, last

FORMAT = Format(
    provider="dashscope",
    api="generation",
    operation="chat",
    path=r"(?:/.*)?/api/v1/services/aigc/(?:text|multimodal)-generation/generation/?",
    usage={
        "input_tokens": (("usage.input_tokens",),),
        "output_tokens": (("usage.output_tokens",),),
        "total_tokens": (("usage.total_tokens",),),
        # https://www.alibabacloud.com/help/en/model-studio/context-cache
        "cached_input_tokens": (("usage.prompt_tokens_details.cached_tokens",),),
        "cache_creation_input_tokens": (("usage.prompt_tokens_details.cache_creation_input_tokens",),),
        "reasoning_output_tokens": (("usage.output_tokens_details.reasoning_tokens",),),
    },
    content=(
        "output.text",
        "output.choices[].message.content",
        "output.choices[].message.reasoning_content",
        "output.choices[].message.tool_calls",
        "output.message.content",  # qwen-deep-research
    ),
    last=(*last("output.choices[].finish_reason"), *last("output.finish_reason")),
    error=ERROR,
)
