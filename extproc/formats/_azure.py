"""Azure OpenAI's deployments (https://learn.microsoft.com/azure/ai-services/openai/reference): OpenAI's own shapes.

What is asked is the deployment, which the path names; a model in the body is not looked at. The `/openai/v1/` API of
Azure has no deployments in its paths and is OpenAI's (https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle).
"""

from __future__ import annotations

from dataclasses import replace

from extproc.core.format import Format


def deployed(openai: Format, name: str) -> Format:
    """Return the format of one of OpenAI's APIs, as it is served for a deployment."""
    # SDKs whose endpoint is given with a slash at its end send two: //openai/deployments/
    return replace(openai, provider="azure", path=rf"(?:/.*)?/openai/deployments/(?P<model>[^/]+)/{name}/?")
