"""Vertex AI, generateContent and streamGenerateContent.

https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference

The bodies are the Gemini API's; the model in the path is a publisher's or, where it is tuned, an endpoint
(https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints/generateContent). Enumerations
may be numbers. Events before the last one have usageMetadata without counts, as has the answer to a blocked prompt.
"""

from __future__ import annotations

from extproc.core.format import Format
from extproc.formats._gemini import GENERATE, OPERATION, content, finish, usage

FORMAT = Format(
    provider="gcp.vertex_ai",
    api="generate_content",
    operation=OPERATION,
    path=rf"(?:/.*)?/(?:publishers/[^/]+/models|locations/[^/]+/endpoints)/(?P<model>[^/]+):{GENERATE}",
    usage=usage(),
    response_model=("modelVersion",),
    content=content(),
    running="candidates[]",
    finish=finish(),
    array=True,
)
