"""Amazon Bedrock InvokeModel and InvokeModelWithResponseStream: each model's own request and response.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html

Bedrock counts for all models: in headers of a whole response, and in `amazon-bedrock-invocationMetrics` of a stream's
last event. The models' own counts are taken where they mean the same, as a proxy may have taken the headers away:
Claude (https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html),
Nova (https://docs.aws.amazon.com/nova/latest/userguide/complete-request-schema.html),
Titan (https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-text.html),
Llama (https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-meta.html).
Those in OpenAI's shape (imported models, Jamba, gpt-oss) are not: their input includes the cache, Bedrock's does not.
"""

from __future__ import annotations

from extproc.core.format import Format, Places
from extproc.formats import _anthropic
from extproc.formats._bedrock import PROVIDER, path


def _places(header: str, metric: str, *native: str) -> Places:
    """Return where a count is: in Bedrock's metrics, in a header, or where the models have it."""
    return (f"amazon-bedrock-invocationMetrics.{metric}", f"@x-amzn-bedrock-{header}-token-count", *native)


def _nova(*names: str) -> Places:
    """Return where Nova has a count, in a whole answer and in a stream."""
    return tuple(f"{parent}.{name}" for parent in ("usage", "metadata.usage") for name in names)


_CACHE_READ = _places(
    "cache-read-input",
    "cacheReadInputTokenCount",
    *_anthropic.CACHE_READ,
    *_nova("cacheReadInputTokens", "cacheReadInputTokenCount"),
)
_CACHE_WRITE = _places(
    "cache-write-input",
    "cacheWriteInputTokenCount",
    *_anthropic.CACHE_CREATION,
    *_nova("cacheWriteInputTokens", "cacheWriteInputTokenCount", "cacheWriteInputTokensCount"),
)
_INPUT = _places(
    "input",
    "inputTokenCount",
    *_anthropic.INPUT,
    *_nova("inputTokens"),
    "inputTextTokenCount",  # Titan
    "prompt_token_count",  # Llama
)
_OUTPUT = _places(
    "output",
    "outputTokenCount",
    *_anthropic.OUTPUT,
    *_nova("outputTokens"),
    "results[].tokenCount",  # Titan
    "totalOutputTextTokenCount",  # Titan, streamed
    "generation_token_count",  # Llama
)

FORMAT = Format(
    provider=PROVIDER,
    api="invoke",
    operation="chat",
    path=path("invoke(?:-with-response-stream)?"),
    usage={
        "input_tokens": (_INPUT, _CACHE_READ, _CACHE_WRITE),
        "output_tokens": (_OUTPUT,),
        "cached_input_tokens": (_CACHE_READ,),
        "cache_creation_input_tokens": (_CACHE_WRITE,),
        "reasoning_output_tokens": (_anthropic.THINKING,),
    },
    response_model=_anthropic.RESPONSE_MODEL,
    content=(
        *_anthropic.CONTENT,
        "contentBlockDelta.delta.text",  # Nova
        "contentBlockDelta.delta.toolUse",
        "contentBlockDelta.delta.reasoningContent.text",
        "contentBlockStart.start.toolUse",
        "outputText",  # Titan
        "generation",  # Llama
        "outputs[].text",  # Mistral
        "choices[].delta.content",  # in OpenAI's shape
        "choices[].delta.reasoning_content",
        "choices[].delta.tool_calls",
        "choices[].message.content",
        "choices[].text",
        "text",  # Cohere
        "completion",  # Claude, the older text API
    ),
    finish=(*_anthropic.FINISH, "amazon-bedrock-invocationMetrics"),
    last=_anthropic.LAST,
)
