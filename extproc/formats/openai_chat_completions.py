"""OpenAI chat completions (https://platform.openai.com/docs/api-reference/chat).

Also as served by others in this shape, as by DashScope (https://help.aliyun.com/zh/model-studio/qwen-api-reference),
vLLM (https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html) and DeepSeek, who leave out `/v1`
(https://api-docs.deepseek.com/api/create-chat-completion).
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._openai import DONE, FINISH, RUNNING, USAGE, path

FORMAT = Format(
    provider="openai",
    api="chat_completions",
    operation="chat",
    path=path("chat/completions"),
    usage=USAGE,
    output_is_rest=True,  # xAI, Grok and Gemini on Vertex: completion_tokens leave the reasoning out
    content=(
        "choices[].delta.content",
        "choices[].delta.reasoning_content",  # DeepSeek, DashScope
        "choices[].delta.reasoning",  # vLLM, OpenRouter
        "choices[].delta.tool_calls",
        "choices[].delta.function_call",
        "choices[].delta.refusal",
        "choices[].delta.audio",
    ),
    running=RUNNING,
    finish=FINISH,
    done=DONE,
)
