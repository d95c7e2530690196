"""Counts that lie at places of which no transcript was found: documented shapes of usage objects."""

from __future__ import annotations

import pytest

from extproc import formats
from extproc.core.facts import Usage

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
    assert found.total(found.counts({"usage": usage})) == expected
