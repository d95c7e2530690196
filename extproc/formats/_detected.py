"""Anything that is posted to a host of which the configuration says that models are behind it.

A guess: an ordered list of places where APIs put their facts, of which the first that holds one is taken. The known
formats win, as they are asked first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from extproc.core.format import Format

_INPUT = (
    "usage.prompt_tokens",
    "usage.input_tokens",
    "response.usage.input_tokens",
    "message.usage.input_tokens",
    "usage.inputTokens",
    "metadata.usage.inputTokens",
    "usageMetadata.promptTokenCount",
    "response.usageMetadata.promptTokenCount",
    "usage.tokens.input_tokens",
    "meta.tokens.input_tokens",
    "meta.billed_units.input_tokens",
    "prompt_eval_count",
    "tokens_evaluated",
    "details.input_length",
)
_OUTPUT = (
    "usage.completion_tokens",
    "usage.output_tokens",
    "response.usage.output_tokens",
    "message.usage.output_tokens",
    "usage.outputTokens",
    "metadata.usage.outputTokens",
    "usageMetadata.candidatesTokenCount",
    "response.usageMetadata.candidatesTokenCount",
    "usage.tokens.output_tokens",
    "meta.tokens.output_tokens",
    "meta.billed_units.output_tokens",
    "eval_count",
    "tokens_predicted",
    "details.generated_tokens",
)


def detected(hosts: Iterable[str]) -> Format:
    """Return the format that claims whatever is posted to these hosts."""
    return Format(
        provider="unknown",
        api="detected",
        operation="chat",
        path=".*",
        host="|".join(re.escape(host.lower()) for host in hosts) or "(?!)",
        usage={
            "input_tokens": (_INPUT,),
            "output_tokens": (_OUTPUT,),
            "total_tokens": (
                (
                    "usage.total_tokens",
                    "usage.totalTokens",
                    "response.usage.total_tokens",
                    "usageMetadata.totalTokenCount",
                ),
            ),
            "cached_input_tokens": (
                (
                    "usage.prompt_tokens_details.cached_tokens",
                    "usage.input_tokens_details.cached_tokens",
                    "response.usage.input_tokens_details.cached_tokens",
                    "usageMetadata.cachedContentTokenCount",
                ),
            ),
            "reasoning_output_tokens": (
                (
                    "usage.completion_tokens_details.reasoning_tokens",
                    "usage.output_tokens_details.reasoning_tokens",
                    "response.usage.output_tokens_details.reasoning_tokens",
                    "usageMetadata.thoughtsTokenCount",
                ),
            ),
        },
        request_model=("model", "modelId", "model_id"),
        response_model=("model", "response.model", "message.model", "modelVersion"),
        content=(
            "choices[].delta.content",
            "choices[].text",
            "delta.text",
            "delta",
            "candidates[].content.parts[]",
            "message.content",
            "response",
            "token.text",
            "content",
        ),
        done=b"[DONE]",
    )
