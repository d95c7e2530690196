"""What the APIs in OpenAI's shape have in common."""

from __future__ import annotations

from extproc.core.format import Sum

# Where usage lies. Groq's streams have it in x_groq (https://console.groq.com/docs/api-reference#chat-create),
# Moonshot's in the choice (https://platform.moonshot.cn/docs/api/chat).
USAGES = ("usage", "x_groq.usage", "choices[].usage")


def _count(*names: str) -> Sum:
    return (tuple(f"{usage}.{name}" for usage in USAGES for name in names),)


USAGE: dict[str, Sum] = {
    "input_tokens": _count("prompt_tokens"),
    "output_tokens": _count("completion_tokens"),
    "total_tokens": _count("total_tokens"),
    # prompt_tokens includes the cached ones and completion_tokens the reasoning:
    # https://platform.openai.com/docs/guides/prompt-caching, https://platform.openai.com/docs/guides/reasoning
    "cached_input_tokens": _count(
        "prompt_tokens_details.cached_tokens",
        "prompt_cache_hit_tokens",  # https://api-docs.deepseek.com/api/create-chat-completion
        "cached_tokens",  # Moonshot
    ),
    "cache_creation_input_tokens": _count(
        "prompt_tokens_details.cache_write_tokens",
        "prompt_tokens_details.cache_creation_input_tokens",  # https://help.aliyun.com/zh/model-studio/context-cache
    ),
    # Not Perplexity's usage.reasoning_tokens, which are no part of completion_tokens
    # (https://docs.perplexity.ai/getting-started/models/models/sonar-deep-research).
    "reasoning_output_tokens": _count("completion_tokens_details.reasoning_tokens"),
}

# Usage in a chunk that still has choices is a running count: vLLM's continuous_usage_stats. The final one has none:
# https://platform.openai.com/docs/api-reference/chat/create#chat-create-stream_options
# Or it comes in the chunk that ends the answer (DeepSeek, Mistral), or after it, with an empty choice (LiteLLM).
RUNNING = "choices[]"
FINISH = ("choices[].finish_reason",)

DONE = b"[DONE]"

# The newer APIs (responses, images, audio). input_tokens includes the cached ones and output_tokens the reasoning:
# https://platform.openai.com/docs/api-reference/responses/object. A transcription of a model that is billed by time
# has usage.seconds instead, which are no tokens: https://platform.openai.com/docs/api-reference/audio/json-object


def tokens(*places: str) -> dict[str, Sum]:
    """Return the counts of a usage object in the newer shape, which lies at one of these places."""

    def count(name: str) -> Sum:
        return (tuple(f"{place}.{name}" for place in places),)

    return {
        "input_tokens": count("input_tokens"),
        "output_tokens": count("output_tokens"),
        "total_tokens": count("total_tokens"),
        "cached_input_tokens": count("input_tokens_details.cached_tokens"),
        "cache_creation_input_tokens": count("input_tokens_details.cache_write_tokens"),
        "reasoning_output_tokens": count("output_tokens_details.reasoning_tokens"),
    }


def path(name: str) -> str:
    """Return the pattern of an endpoint behind any prefix: `/v1/`, DashScope's `/compatible-mode/v1/`, or none.

    Azure's `/openai/v1/` is one of them, its deployments are not: see `_azure`.
    """
    return rf"(?!.*/openai/deployments/)(?:/.*)?/{name}/?"
