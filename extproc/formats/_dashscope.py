"""What the native APIs of DashScope (Alibaba Cloud Model Studio) have in common.

Errors have `code` and `message` at the top and no `output`
(https://help.aliyun.com/zh/model-studio/error-code). In a stream they come with status 200.
"""

from __future__ import annotations

ERROR = ("code",)

# In all events but the last, `finish_reason` is the text "null"
# (https://www.alibabacloud.com/help/en/model-studio/qwen-api-via-dashscope).
REASONS = ("stop", "length", "tool_calls")


def last(place: str) -> tuple[tuple[str, str], ...]:
    """Return the events that end a stream, by the place of their `finish_reason`."""
    return tuple((place, reason) for reason in REASONS)
