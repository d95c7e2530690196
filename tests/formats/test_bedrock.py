"""Amazon Bedrock: models in paths, and counts in headers and bodies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from extproc import formats
from extproc.core.exchange import Limits
from extproc.core.facts import UsageStatus
from tests.formats.test_transcripts import Transcript, begin, play, read

INVOKE = Path(__file__).parents[1] / "transcripts" / "aws_bedrock_invoke"
PROFILE = "arn:aws:bedrock:us-east-1:012345678901:inference-profile/us.anthropic.claude-3-7-sonnet-20250219-v1:0"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("amazon.nova-micro-v1%3A0", "amazon.nova-micro-v1:0"),
        ("amazon.nova-micro-v1:0", "amazon.nova-micro-v1:0"),
        (PROFILE.replace(":", "%3A").replace("/", "%2F"), PROFILE),
        (PROFILE.replace("/", "%2F"), PROFILE),
        (PROFILE, PROFILE),
    ],
)
@pytest.mark.parametrize("operation", ["converse", "converse-stream", "invoke", "invoke-with-response-stream"])
def test_model_in_path(path: str, model: str, operation: str) -> None:
    """A model is named by an id or an ARN, of which clients encode all, a part or nothing."""
    whole = f"/model/{path}/{operation}"
    found = formats.find("POST", whole)
    assert found is not None
    assert found.model_in_path(whole) == model


def without_counts(transcript: Transcript) -> Transcript:
    """Take Bedrock's counts out of the headers of a response."""
    response = transcript.response
    headers = {name: value for name, value in response.headers.items() if not name.endswith("-token-count")}
    assert headers != response.headers
    return replace(transcript, response=replace(response, headers=headers))


@pytest.mark.parametrize(
    "case",
    [
        "whole_claude",
        "whole_claude_cache_creation",
        "whole_claude_cache_read",
        "whole_llama",
        "whole_nova",
        "whole_titan",
    ],
)
def test_without_headers(case: str) -> None:
    """Where the headers have no counts, a model's own are the same."""
    transcript = without_counts(read(INVOKE / case))
    facts, gaps = play(transcript, [transcript.request.body], [transcript.response.body])
    assert (facts, gaps) == (transcript.known, set())


@pytest.mark.parametrize("case", ["whole_cohere", "whole_imported_model_arn", "whole_mistral"])
def test_without_body(case: str) -> None:
    """Counts in the headers are known before the body is, and are all there is for models that do not count."""
    transcript = read(INVOKE / case)
    exchange = begin(transcript, Limits())
    exchange.response_headers(transcript.response.headers)
    usage = exchange.facts.usage
    assert exchange.facts.usage_status is UsageStatus.REPORTED
    assert usage.input_tokens == transcript.known["request_prompt_tokens"]
    assert usage.output_tokens == transcript.known["request_completion_tokens"]
    facts, _ = play(without_counts(transcript), [transcript.request.body], [transcript.response.body])
    assert facts["usage"] == "missing"
