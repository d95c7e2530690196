"""Counts that lie at places of which no transcript was found: documented shapes of usage objects."""

from __future__ import annotations

import pytest

from extproc import formats
from extproc.core.facts import Usage
from tests.documents import usage_of

CONVERSE = "/model/anthropic.claude-3-7-sonnet-20250219-v1%3A0/converse"
CHAT, EMBEDDINGS = "/v1/chat/completions", "/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding"


@pytest.mark.parametrize(
    ("path", "usage", "expected"),
    [
        # https://api-docs.deepseek.com/api/create-chat-completion; relays leave prompt_tokens_details out.
        (
            CHAT,
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_cache_hit_tokens": 64,
                "prompt_cache_miss_tokens": 36,
            },
            Usage(100, 50, 150, 64),
        ),
        (
            CHAT,
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 0},
                "prompt_cache_hit_tokens": 64,
            },
            Usage(100, 50, 150, 0),
        ),
        # https://help.aliyun.com/zh/model-studio/call-single-agent-application: a workflow may use several models.
        (
            "/api/v1/apps/a1/completion",
            {
                "models": [
                    {"model_id": "qwen-max", "input_tokens": 10, "output_tokens": 2},
                    {"model_id": "qwen-plus", "input_tokens": 20, "output_tokens": 3},
                ]
            },
            Usage(30, 5, 35),
        ),
        # https://help.aliyun.com/zh/model-studio/context-cache
        (
            CHAT,
            {
                "prompt_tokens": 3564,
                "completion_tokens": 23,
                "total_tokens": 3587,
                "prompt_tokens_details": {
                    "cache_creation": {"ephemeral_5m_input_tokens": 3550},
                    "cache_creation_input_tokens": 3550,
                    "cache_type": "ephemeral",
                    "cached_tokens": 0,
                    "text_tokens": 3564,
                },
            },
            Usage(3564, 23, 3587, 0, 3550),
        ),
        # https://docs.perplexity.ai/getting-started/models/models/sonar-deep-research: thoughts are apart.
        (
            CHAT,
            {
                "prompt_tokens": 33,
                "completion_tokens": 11395,
                "total_tokens": 11428,
                "citation_tokens": 19028,
                "num_search_queries": 21,
                "reasoning_tokens": 193947,
            },
            Usage(33, 11395, 11428),
        ),
        # https://help.aliyun.com/zh/model-studio/multimodal-embedding-api-reference: qwen2.5-vl-embedding has no total,
        # tongyi-embedding-vision-* have the picture in input_tokens.
        (EMBEDDINGS, {"input_tokens": 10, "image_tokens": 896}, Usage(906)),
        (
            EMBEDDINGS,
            {
                "input_tokens": 432,
                "input_tokens_details": {"image_tokens": 402, "text_tokens": 30},
                "output_tokens": 1,
                "total_tokens": 433,
            },
            Usage(432, 1, 433),
        ),
    ],
)
def test_counts(path: str, usage: dict[str, object], expected: Usage) -> None:
    """A documented usage object is read in full, and nothing of it is counted that is not meant."""
    found = formats.find("POST", path)
    assert found is not None
    assert usage_of(found, {"usage": usage}) == expected


DOCUMENTS: list[tuple[str, dict[str, object], Usage]] = [
    # https://aws.amazon.com/blogs/machine-learning/effectively-use-prompt-caching-on-amazon-bedrock/
    (
        CONVERSE,
        {
            "usage": {
                "inputTokens": 4,
                "outputTokens": 20,
                "totalTokens": 1585,
                "cacheReadInputTokenCount": 0,
                "cacheWriteInputTokenCount": 1561,
            }
        },
        Usage(1565, 20, 1585, 0, 1561),
    ),
    (
        CONVERSE,
        {
            "usage": {
                "inputTokens": 4,
                "outputTokens": 20,
                "totalTokens": 1585,
                "cacheReadInputTokenCount": 1561,
                "cacheReadInputTokens": 1561,
                "cacheWriteInputTokenCount": 0,
                "cacheWriteInputTokens": 0,
            }
        },
        Usage(1565, 20, 1585, 1561, 0),
    ),
    # https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md: cache_n and prompt_n are the prompt;
    # tokens_cached is what the cache holds afterwards.
    (
        "/completion",
        {
            "content": "",
            "stop": True,
            "tokens_cached": 271,
            "tokens_evaluated": 237,
            "tokens_predicted": 35,
            "timings": {"cache_n": 236, "prompt_n": 1, "predicted_n": 35},
        },
        Usage(237, 35, 272, 236),
    ),
    # https://github.com/ollama/ollama/pull/17943: the cached ones are a part of the prompt's.
    (
        "/api/chat",
        {"done": True, "prompt_eval_count": 29, "prompt_eval_cached_count": 28, "eval_count": 3},
        Usage(29, 3, 32, 28),
    ),
    # https://ai.google.dev/gemini-api/docs/interactions/streaming: usage is all so far, step_usage is the step's.
    (
        "/v1beta/interactions",
        {
            "index": 2,
            "event_type": "step.stop",
            "usage": {
                "total_tokens": 4650,
                "total_input_tokens": 3577,
                "total_output_tokens": 305,
                "total_cached_tokens": 0,
            },
            "step_usage": {
                "total_tokens": 303,
                "total_input_tokens": 31,
                "total_output_tokens": 3,
                "total_cached_tokens": 0,
            },
        },
        Usage(3577, 305, 4650, 0),
    ),
    # https://huggingface.github.io/text-generation-inference/#/Text%20Generation%20Inference/generate
    (
        "/generate",
        {
            "generated_text": "test",
            "details": {
                "best_of_sequences": [
                    {"finish_reason": "length", "generated_text": "test", "generated_tokens": 2},
                    {"finish_reason": "length", "generated_text": "test", "generated_tokens": 3},
                ],
                "finish_reason": "length",
                "generated_tokens": 1,
                "prefill": [{"id": 0, "logprob": -0.34, "text": "test"}],
            },
        },
        Usage(output_tokens=6),
    ),
]


@pytest.mark.parametrize(("path", "document", "expected"), DOCUMENTS)
def test_documents(path: str, document: dict[str, object], expected: Usage) -> None:
    """A documented answer is read in full, and nothing in it is counted twice."""
    found = formats.find("POST", path)
    assert found is not None
    assert usage_of(found, document) == expected
