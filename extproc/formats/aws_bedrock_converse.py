"""Amazon Bedrock Converse and ConverseStream.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html

Counts are those of TokenUsage (https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html),
in a stream in its last event, `metadata`, after `messageStop`. The response names no model, unless a prompt router
chose one.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._bedrock import PROVIDER, path

# The longer names are not in the reference; answers have both, or these alone:
# https://aws.amazon.com/blogs/machine-learning/effectively-use-prompt-caching-on-amazon-bedrock/
_CACHE_READ = ("usage.cacheReadInputTokens", "usage.cacheReadInputTokenCount")
_CACHE_WRITE = ("usage.cacheWriteInputTokens", "usage.cacheWriteInputTokenCount")

FORMAT = Format(
    provider=PROVIDER,
    api="converse",
    operation="chat",
    path=path("converse(?:-stream)?"),
    usage={
        "input_tokens": (("usage.inputTokens",), _CACHE_READ, _CACHE_WRITE),
        "output_tokens": (("usage.outputTokens",),),
        "total_tokens": (("usage.totalTokens",),),
        "cached_input_tokens": (_CACHE_READ,),
        "cache_creation_input_tokens": (_CACHE_WRITE,),
    },
    response_model=("trace.promptRouter.invokedModelId",),
    content=(
        "delta.text",
        "delta.toolUse.input",
        "delta.toolResult",
        "delta.reasoningContent.text",
        "delta.reasoningContent.redactedContent",
        "delta.image",
        "start.toolUse.name",
    ),
    finish=("stopReason",),
    last=(("usage", None),),
)
