"""What the APIs of Amazon Bedrock's runtime have in common.

The model is in the path: an id, or the ARN of an inference profile, a prompt, an imported or a provisioned model
(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_RequestSyntax).
Clients encode its colons and its slash, or do not. Streams are AWS event streams.

Input counts leave out what was read from or written to the cache: all input is the sum of the three
(https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html).
"""

from __future__ import annotations

PROVIDER = "aws.bedrock"


def path(operation: str) -> str:
    """Return the pattern of an operation on a model, behind any prefix."""
    return rf"(?:/.*)?/model/(?P<model>[^/]+(?:/[^/]+)?)/{operation}"
