"""DashScope application API: agents and workflows.

https://help.aliyun.com/zh/model-studio/agent-and-workflow-application-api-reference

An application calls one model or several, which only the response names: the counts are their sums, the model is the
first of them. A workflow may report none. Every event of a stream has all counts so far.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._dashscope import ERROR, last

FORMAT = Format(
    provider="dashscope",
    api="application",
    operation="invoke_agent",
    path=r"(?:/.*)?/api/v1/apps/[^/]+/completion/?",
    usage={
        "input_tokens": (("usage.models[].input_tokens",),),
        "output_tokens": (("usage.models[].output_tokens",),),
    },
    response_model=("usage.models[].model_id",),
    content=("output.text", "output.thoughts[].thought"),
    last=last("output.finish_reason"),
    error=ERROR,
)
