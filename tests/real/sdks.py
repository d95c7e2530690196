"""Calls by vendors' SDKs, and what the SDKs' own objects say of them.

Each function calls an endpoint of the SDK's through Envoy at `url`, for the model of a recording, and adds the counts
up as the contract has them: input with the cached tokens, output with the reasoning. The prompt does not matter: the
answer is a recorded one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import anthropic
import boto3
import cohere
import dashscope
import httpx
import mistralai.client as mistral
import ollama
import openai
import requests
from anthropic.types import Message
from anthropic.types import Usage as AnthropicUsage
from botocore.config import Config
from google import genai
from google.genai.types import GenerateContentResponse, HttpOptions, HttpRetryOptions
from google.oauth2.credentials import Credentials
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import Response, ResponseUsage
from pydantic import BaseModel

from tests.real.replay import Recorded, Seen, added, tokens

Call = Callable[[str, Recorded], Seen]

QUESTION = "What is a service mesh, and who needs one?"
AUDIO = bytes(4_000)
KEY = "no-key"

_Cohere = TypeVar("_Cohere", cohere.Client, cohere.ClientV2)


# openai


@contextmanager
def _openai(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@contextmanager
def _azure(url: str) -> Iterator[openai.AzureOpenAI]:
    with openai.AzureOpenAI(azure_endpoint=url, api_key=KEY, api_version="2024-10-21", max_retries=0) as client:
        yield client


def _extra(model: BaseModel, *names: str) -> Any:  # noqa: ANN401 - what the vendor's type does not know
    """Return what the SDK has kept of a member that others than OpenAI add."""
    found: Any = model.model_extra
    for name in names:
        found = (found or {}).get(name)
    return found


def _of_chunk(chunk: ChatCompletionChunk) -> dict[str, int]:
    others = [_extra(chunk, "x_groq", "usage"), *(_extra(choice, "usage") for choice in chunk.choices)]
    usage = chunk.usage or next((CompletionUsage.model_validate(other) for other in others if other), None)
    return _of_completion(usage)


def _of_completion(usage: CompletionUsage | None) -> dict[str, int]:
    if usage is None:
        return {}
    of_input, of_output = usage.prompt_tokens_details, usage.completion_tokens_details
    reasoning = of_output.reasoning_tokens if of_output else None
    # xAI's completion_tokens leave the reasoning out, as the total shows.
    apart = (
        reasoning if usage.total_tokens == sum((usage.prompt_tokens, usage.completion_tokens, reasoning or 0)) else 0
    )
    return tokens(
        usage.prompt_tokens,
        added(usage.completion_tokens, apart),
        usage.total_tokens,
        cached=of_input.cached_tokens if of_input else _extra(usage, "cached_tokens"),  # Moonshot
        cache_creation=of_input.cache_write_tokens if of_input else None,
        reasoning=reasoning,
    )


def _of_response(usage: ResponseUsage | None) -> dict[str, int]:
    if usage is None:
        return {}
    return tokens(
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        cached=usage.input_tokens_details.cached_tokens,
        cache_creation=usage.input_tokens_details.cache_write_tokens,
        reasoning=usage.output_tokens_details.reasoning_tokens,
    )


def _chat(client: openai.OpenAI, model: str) -> Seen:
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": QUESTION}])
    return Seen(model, _of_completion(answer.usage), answer.model)


def _chat_streamed(client: openai.OpenAI, model: str) -> Seen:
    seen = Seen(model, {})
    for chunk in client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], stream=True
    ):
        seen = Seen(model, _of_chunk(chunk) or seen.tokens, chunk.model or seen.response_model)
    return seen


def openai_chat(url: str, recorded: Recorded) -> Seen:
    """OpenAI chat completions."""
    with _openai(url) as client:
        return _chat(client, recorded.model)


def openai_chat_streamed(url: str, recorded: Recorded) -> Seen:
    """OpenAI chat completions, streamed."""
    with _openai(url) as client:
        return _chat_streamed(client, recorded.model)


def azure_chat(url: str, recorded: Recorded) -> Seen:
    """Azure OpenAI chat completions: the SDK puts the model, as the deployment, into the path."""
    with _azure(url) as client:
        return _chat(client, recorded.model)


def azure_chat_streamed(url: str, recorded: Recorded) -> Seen:
    """Azure OpenAI chat completions, streamed."""
    with _azure(url) as client:
        return _chat_streamed(client, recorded.model)


def openai_completion(url: str, recorded: Recorded) -> Seen:
    """OpenAI's older completions."""
    with _openai(url) as client:
        answer = client.completions.create(model=recorded.model, prompt=QUESTION)
    return Seen(recorded.model, _of_completion(answer.usage), answer.model)


def openai_completion_streamed(url: str, recorded: Recorded) -> Seen:
    """OpenAI's older completions, streamed."""
    seen = Seen(recorded.model, {})
    with _openai(url) as client:
        for chunk in client.completions.create(model=recorded.model, prompt=QUESTION, stream=True):
            seen = Seen(recorded.model, _of_completion(chunk.usage) or seen.tokens, chunk.model)
    return seen


def _embeddings(client: openai.OpenAI, model: str) -> Seen:
    answer = client.embeddings.create(model=model, input=QUESTION)
    return Seen(model, tokens(answer.usage.prompt_tokens, total=answer.usage.total_tokens), answer.model)


def openai_embeddings(url: str, recorded: Recorded) -> Seen:
    """OpenAI embeddings."""
    with _openai(url) as client:
        return _embeddings(client, recorded.model)


def azure_embeddings(url: str, recorded: Recorded) -> Seen:
    """Azure OpenAI embeddings."""
    with _azure(url) as client:
        return _embeddings(client, recorded.model)


def openai_response(url: str, recorded: Recorded) -> Seen:
    """OpenAI responses."""
    with _openai(url) as client:
        answer = client.responses.create(model=recorded.model, input=QUESTION)
    return Seen(recorded.model, _of_response(answer.usage), answer.model)


def openai_response_streamed(url: str, recorded: Recorded) -> Seen:
    """OpenAI responses, streamed: the last event has the whole response."""
    last: Response | None = None
    with _openai(url) as client:
        for event in client.responses.create(model=recorded.model, input=QUESTION, stream=True):
            last = getattr(event, "response", last)
    assert last is not None
    return Seen(recorded.model, _of_response(last.usage), last.model)


def openai_moderation(url: str, recorded: Recorded) -> Seen:
    """OpenAI moderations, which use no tokens that anybody counts."""
    with _openai(url) as client:
        answer = client.moderations.create(model=recorded.model, input=QUESTION)
    return Seen(recorded.model, {}, answer.model)


def openai_image(url: str, recorded: Recorded) -> Seen:
    """OpenAI images."""
    with _openai(url) as client:
        usage = client.images.generate(model=recorded.model, prompt=QUESTION).usage
    return Seen(recorded.model, tokens(usage.input_tokens, usage.output_tokens, usage.total_tokens) if usage else {})


def openai_image_streamed(url: str, recorded: Recorded) -> Seen:
    """OpenAI images, streamed."""
    counts: dict[str, int] = {}
    with _openai(url) as client:
        for event in client.images.generate(model=recorded.model, prompt=QUESTION, stream=True):
            if event.type == "image_generation.completed":
                usage = event.usage
                counts = tokens(usage.input_tokens, usage.output_tokens, usage.total_tokens)
    return Seen(recorded.model, counts)


def openai_transcription(url: str, recorded: Recorded) -> Seen:
    """OpenAI transcriptions: the model is a field of a form; some are billed by time and report no tokens."""
    with _openai(url) as client:
        usage = client.audio.transcriptions.create(model=recorded.model, file=("a.wav", AUDIO)).usage
    if usage is None or usage.type != "tokens":
        return Seen(recorded.model, {})
    return Seen(recorded.model, tokens(usage.input_tokens, usage.output_tokens, usage.total_tokens))


def openai_transcription_streamed(url: str, recorded: Recorded) -> Seen:
    """OpenAI transcriptions, streamed."""
    counts: dict[str, int] = {}
    with _openai(url) as client:
        for event in client.audio.transcriptions.create(model=recorded.model, file=("a.wav", AUDIO), stream=True):
            if event.type == "transcript.text.done" and event.usage:
                counts = tokens(event.usage.input_tokens, event.usage.output_tokens, event.usage.total_tokens)
    return Seen(recorded.model, counts)


# anthropic


def _of_message(message: Message) -> dict[str, int]:
    usage: AnthropicUsage = message.usage
    details = usage.output_tokens_details
    return tokens(
        # input_tokens leaves the cache out.
        added(usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens),
        usage.output_tokens,
        cached=usage.cache_read_input_tokens,
        cache_creation=usage.cache_creation_input_tokens,
        reasoning=details.thinking_tokens if details else None,
    )


Anthropic = anthropic.Anthropic | anthropic.AnthropicVertex | anthropic.AnthropicBedrock


def _anthropic(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0)


def _anthropic_on_vertex(url: str) -> anthropic.AnthropicVertex:
    return anthropic.AnthropicVertex(
        base_url=f"{url}/v1", region="us-east5", project_id="project", access_token=KEY, max_retries=0
    )


def _anthropic_on_bedrock(url: str) -> anthropic.AnthropicBedrock:
    return anthropic.AnthropicBedrock(
        base_url=url, aws_region="us-east-1", aws_access_key=KEY, aws_secret_key=KEY, max_retries=0
    )


def _message(client: Anthropic, model: str) -> Seen:
    with client:
        answer = client.messages.create(model=model, max_tokens=1024, messages=[{"role": "user", "content": QUESTION}])
    return Seen(model, _of_message(answer), answer.model)


def _message_streamed(client: Anthropic, model: str) -> Seen:
    with (
        client,
        client.messages.stream(
            model=model, max_tokens=1024, messages=[{"role": "user", "content": QUESTION}]
        ) as stream,
    ):
        answer = stream.get_final_message()
    return Seen(model, _of_message(answer), answer.model)


def anthropic_message(url: str, recorded: Recorded) -> Seen:
    """Anthropic messages."""
    return _message(_anthropic(url), recorded.model)


def anthropic_message_streamed(url: str, recorded: Recorded) -> Seen:
    """Anthropic messages, streamed, as the SDK puts them together."""
    return _message_streamed(_anthropic(url), recorded.model)


def anthropic_message_on_vertex(url: str, recorded: Recorded) -> Seen:
    """Anthropic messages on Vertex."""
    return _message(_anthropic_on_vertex(url), recorded.model)


def anthropic_message_on_vertex_streamed(url: str, recorded: Recorded) -> Seen:
    """Anthropic messages on Vertex, streamed."""
    return _message_streamed(_anthropic_on_vertex(url), recorded.model)


def anthropic_message_on_bedrock(url: str, recorded: Recorded) -> Seen:
    """Anthropic messages on Bedrock, by Anthropic's SDK."""
    return _message(_anthropic_on_bedrock(url), recorded.model)


def anthropic_message_on_bedrock_streamed(url: str, recorded: Recorded) -> Seen:
    """Anthropic messages on Bedrock, streamed, by Anthropic's SDK with its own decoder."""
    return _message_streamed(_anthropic_on_bedrock(url), recorded.model)


# google-genai


def _retries_off(url: str) -> HttpOptions:
    return HttpOptions(base_url=url, retry_options=HttpRetryOptions(attempts=1))


@contextmanager
def _gemini(url: str) -> Iterator[genai.Client]:
    with genai.Client(api_key=KEY, vertexai=False, http_options=_retries_off(url)) as client:
        yield client


@contextmanager
def _vertex(url: str) -> Iterator[genai.Client]:
    with genai.Client(
        vertexai=True,
        project="project",
        location="us-central1",
        credentials=Credentials(token=KEY),  # type: ignore[no-untyped-call]
        http_options=_retries_off(url),
    ) as client:
        yield client


def _of_generated(answers: Iterable[GenerateContentResponse], model: str) -> Seen:
    seen = Seen(model, {})
    for answer in answers:
        counts = dict(seen.tokens)
        if usage := answer.usage_metadata:
            counts = tokens(
                added(usage.prompt_token_count, usage.tool_use_prompt_token_count),
                # Thoughts are no part of the candidates.
                added(usage.candidates_token_count, usage.thoughts_token_count),
                usage.total_token_count,
                cached=usage.cached_content_token_count,
                reasoning=usage.thoughts_token_count,
            )
        seen = Seen(model, {**seen.tokens, **counts}, answer.model_version or seen.response_model)
    return seen


def _generate(client: genai.Client, model: str) -> Seen:
    return _of_generated([client.models.generate_content(model=model, contents=QUESTION)], model)


def _generate_streamed(client: genai.Client, model: str) -> Seen:
    return _of_generated(client.models.generate_content_stream(model=model, contents=QUESTION), model)


def gemini(url: str, recorded: Recorded) -> Seen:
    """Gemini's generateContent."""
    with _gemini(url) as client:
        return _generate(client, recorded.model)


def gemini_streamed(url: str, recorded: Recorded) -> Seen:
    """Gemini's streamGenerateContent."""
    with _gemini(url) as client:
        return _generate_streamed(client, recorded.model)


def gemini_embeddings(url: str, recorded: Recorded) -> Seen:
    """Gemini's embeddings."""
    with _gemini(url) as client:
        answer = client.models.embed_content(model=recorded.model, contents=QUESTION)
    usage = answer.usage_metadata
    return Seen(recorded.model, tokens(usage.prompt_token_count, total=usage.total_token_count) if usage else {})


def vertex(url: str, recorded: Recorded) -> Seen:
    """Vertex's generateContent."""
    with _vertex(url) as client:
        return _generate(client, recorded.model)


def vertex_streamed(url: str, recorded: Recorded) -> Seen:
    """Vertex's streamGenerateContent."""
    with _vertex(url) as client:
        return _generate_streamed(client, recorded.model)


def vertex_embeddings(url: str, recorded: Recorded) -> Seen:
    """Vertex's embeddings: each has its own count."""
    with _vertex(url) as client:
        answer = client.models.embed_content(model=recorded.model, contents=QUESTION)
    statistics = [embedding.statistics for embedding in answer.embeddings or ()]
    counts = [found.token_count for found in statistics if found]
    return Seen(recorded.model, tokens(added(*counts)))


# cohere


@contextmanager
def _cohere(client: type[_Cohere], url: str) -> Iterator[_Cohere]:
    # Others have its paths too: it is told by its host.
    with (
        httpx.Client(headers={"Host": "api.cohere.com"}) as http,
        client(KEY, base_url=url, max_retries=0, httpx_client=http) as running,
    ):
        yield running


def _of_cohere(usage: Any) -> dict[str, int]:  # noqa: ANN401 - v1's ApiMeta or v2's Usage, which are alike
    if usage is None:
        return {}
    counts = usage.tokens or usage.billed_units
    if counts is None:
        return {}
    cached = getattr(usage, "cached_tokens", None)
    return tokens(counts.input_tokens, getattr(counts, "output_tokens", None), cached=cached)


def cohere_chat(url: str, recorded: Recorded) -> Seen:
    """Cohere's chat, version 2."""
    with _cohere(cohere.ClientV2, url) as client:
        answer = client.chat(model=recorded.model, messages=[cohere.UserChatMessageV2(content=QUESTION)])
    return Seen(recorded.model, _of_cohere(answer.usage))


def cohere_chat_streamed(url: str, recorded: Recorded) -> Seen:
    """Cohere's chat, version 2, streamed."""
    counts: dict[str, int] = {}
    with _cohere(cohere.ClientV2, url) as client:
        for event in client.chat_stream(model=recorded.model, messages=[cohere.UserChatMessageV2(content=QUESTION)]):
            if event.type == "message-end":
                counts = _of_cohere(event.delta and event.delta.usage)
    return Seen(recorded.model, counts)


def cohere_chat_v1(url: str, recorded: Recorded) -> Seen:
    """Cohere's chat, version 1."""
    with _cohere(cohere.Client, url) as client:
        answer = client.chat(model=recorded.model, message=QUESTION)
    return Seen(recorded.model, _of_cohere(answer.meta))


def cohere_chat_v1_streamed(url: str, recorded: Recorded) -> Seen:
    """Cohere's chat, version 1, streamed."""
    counts: dict[str, int] = {}
    with _cohere(cohere.Client, url) as client:
        for event in client.chat_stream(model=recorded.model, message=QUESTION):
            if event.event_type == "stream-end":
                counts = _of_cohere(event.response.meta)
    return Seen(recorded.model, counts)


def cohere_embeddings(url: str, recorded: Recorded) -> Seen:
    """Cohere's embeddings, version 2."""
    with _cohere(cohere.ClientV2, url) as client:
        answer = client.embed(
            model=recorded.model, input_type="search_document", embedding_types=["float"], texts=[QUESTION]
        )
    return Seen(recorded.model, _of_cohere(answer.meta))


def cohere_rerank(url: str, recorded: Recorded) -> Seen:
    """Cohere's rerank, version 2, which is billed by search and has no tokens."""
    with _cohere(cohere.ClientV2, url) as client:
        answer = client.rerank(model=recorded.model, query=QUESTION, documents=["a", "b"])
    return Seen(recorded.model, _of_cohere(answer.meta))


# mistralai


def _of_mistral(usage: mistral.models.UsageInfo | None) -> dict[str, int]:
    if usage is None:
        return {}
    details = usage.model_extra or {}
    of_input = details.get("prompt_tokens_details") or details.get("prompt_token_details") or {}
    return tokens(
        usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, cached=of_input.get("cached_tokens")
    )


@contextmanager
def _mistral(url: str) -> Iterator[mistral.Mistral]:
    with mistral.Mistral(api_key=KEY, server_url=url) as client:
        yield client


def mistral_chat(url: str, recorded: Recorded) -> Seen:
    """Mistral's chat."""
    with _mistral(url) as client:
        answer = client.chat.complete(model=recorded.model, messages=[mistral.models.UserMessage(content=QUESTION)])
    return Seen(recorded.model, _of_mistral(answer.usage), answer.model)


def mistral_chat_streamed(url: str, recorded: Recorded) -> Seen:
    """Mistral's chat, streamed."""
    seen = Seen(recorded.model, {})
    with (
        _mistral(url) as client,
        client.chat.stream(model=recorded.model, messages=[mistral.models.UserMessage(content=QUESTION)]) as events,
    ):
        for event in events:
            counts = _of_mistral(event.data.usage or None)
            seen = Seen(recorded.model, counts or seen.tokens, event.data.model)
    return seen


def mistral_embeddings(url: str, recorded: Recorded) -> Seen:
    """Mistral's embeddings."""
    with _mistral(url) as client:
        answer = client.embeddings.create(model=recorded.model, inputs=[QUESTION])
    return Seen(recorded.model, tokens(answer.usage.prompt_tokens, total=answer.usage.total_tokens), answer.model)


# ollama


def _of_ollama(
    answers: Iterable[ollama.ChatResponse | ollama.GenerateResponse | ollama.EmbedResponse], model: str
) -> Seen:
    *_, last = answers
    counts = tokens(last.prompt_eval_count, getattr(last, "eval_count", None))
    return Seen(model, counts, last.model)


def ollama_chat(url: str, recorded: Recorded) -> Seen:
    """Ollama's chat."""
    with ollama.Client(host=url) as client:
        answer = client.chat(model=recorded.model, messages=[{"role": "user", "content": QUESTION}])
    return _of_ollama([answer], recorded.model)


def ollama_chat_streamed(url: str, recorded: Recorded) -> Seen:
    """Ollama's chat, streamed."""
    with ollama.Client(host=url) as client:
        answers = client.chat(model=recorded.model, messages=[{"role": "user", "content": QUESTION}], stream=True)
        return _of_ollama(answers, recorded.model)


def ollama_generate(url: str, recorded: Recorded) -> Seen:
    """Ollama's generate."""
    with ollama.Client(host=url) as client:
        return _of_ollama([client.generate(model=recorded.model, prompt=QUESTION)], recorded.model)


def ollama_generate_streamed(url: str, recorded: Recorded) -> Seen:
    """Ollama's generate, streamed."""
    with ollama.Client(host=url) as client:
        return _of_ollama(client.generate(model=recorded.model, prompt=QUESTION, stream=True), recorded.model)


def ollama_embeddings(url: str, recorded: Recorded) -> Seen:
    """Ollama's embed."""
    with ollama.Client(host=url) as client:
        return _of_ollama([client.embed(model=recorded.model, input=QUESTION)], recorded.model)


# boto3


@contextmanager
def _bedrock(url: str) -> Iterator[Any]:
    session = boto3.Session(aws_access_key_id=KEY, aws_secret_access_key=KEY, region_name="us-east-1")
    config = Config(retries={"total_max_attempts": 1})
    client = session.client("bedrock-runtime", endpoint_url=url, config=config)
    try:
        yield client
    finally:
        client.close()


def _of_converse(usage: Mapping[str, int]) -> dict[str, int]:
    read, written = usage.get("cacheReadInputTokens"), usage.get("cacheWriteInputTokens")
    # inputTokens leaves the cache out.
    return tokens(
        added(usage["inputTokens"], read, written),
        usage["outputTokens"],
        usage["totalTokens"],
        cached=read,
        cache_creation=written,
    )


def bedrock_converse(url: str, recorded: Recorded) -> Seen:
    """Bedrock's Converse."""
    with _bedrock(url) as client:
        answer = client.converse(modelId=recorded.model, messages=[{"role": "user", "content": [{"text": QUESTION}]}])
    return Seen(recorded.model, _of_converse(answer["usage"]))


def bedrock_converse_streamed(url: str, recorded: Recorded) -> Seen:
    """Bedrock's ConverseStream, its event stream parsed by botocore."""
    counts: dict[str, int] = {}
    with _bedrock(url) as client:
        answer = client.converse_stream(
            modelId=recorded.model, messages=[{"role": "user", "content": [{"text": QUESTION}]}]
        )
        for event in answer["stream"]:
            if "metadata" in event:
                counts = _of_converse(event["metadata"]["usage"])
    return Seen(recorded.model, counts)


def _of_invocation(counts: Mapping[str, Any], *names: str) -> dict[str, int]:
    """Return the counts that have these names: input, output, read from the cache, written to it."""
    found = (counts.get(name) for name in names)
    fresh, output, read, written = (None if count is None else int(count) for count in found)
    return tokens(added(fresh, read, written), output, cached=read, cache_creation=written)


def bedrock_invoke(url: str, recorded: Recorded) -> Seen:
    """Bedrock's InvokeModel: the counts are in the headers."""
    with _bedrock(url) as client:
        answer = client.invoke_model(modelId=recorded.model, body=json.dumps({"prompt": QUESTION}))
        body = json.load(answer["body"])
    names = ("input", "output", "cache-read-input", "cache-write-input")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    counts = _of_invocation(headers, *(f"x-amzn-bedrock-{name}-token-count" for name in names))
    return Seen(recorded.model, counts, body.get("model"))


def bedrock_invoke_streamed(url: str, recorded: Recorded) -> Seen:
    """Bedrock's InvokeModelWithResponseStream: the counts are in the last chunk."""
    counts: dict[str, int] = {}
    with _bedrock(url) as client:
        answer = client.invoke_model_with_response_stream(modelId=recorded.model, body=json.dumps({"prompt": QUESTION}))
        for event in answer["body"]:
            metrics = json.loads(event["chunk"]["bytes"]).get("amazon-bedrock-invocationMetrics", {})
            names = ("inputTokenCount", "outputTokenCount", "cacheReadInputTokenCount", "cacheWriteInputTokenCount")
            counts = _of_invocation(metrics, *names) or counts
    return Seen(recorded.model, counts)


# dashscope


def _of_dashscope(answers: Iterable[Any], model: str) -> Seen:
    counts: dict[str, int] = {}
    for answer in answers:
        assert answer.status_code == 200
        usage = answer.usage or {}
        of_input = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        of_output = usage.get("output_tokens_details") or {}
        counts |= tokens(
            usage.get("input_tokens"),
            usage.get("output_tokens"),
            usage.get("total_tokens"),
            cached=of_input.get("cached_tokens"),
            reasoning=of_output.get("reasoning_tokens"),
        )
    return Seen(model, counts)


@contextmanager
def _dashscope(url: str) -> Iterator[dict[str, Any]]:
    """Give the options of a call; the SDK would keep its own connections open for ever."""
    with requests.Session() as session:
        yield {"api_key": KEY, "base_address": f"{url}/api/v1", "session": session}


def dashscope_generation(url: str, recorded: Recorded) -> Seen:
    """DashScope's text generation."""
    with _dashscope(url) as options:
        answer = dashscope.Generation.call(recorded.model, prompt=QUESTION, **options)
    return _of_dashscope([answer], recorded.model)


def dashscope_generation_streamed(url: str, recorded: Recorded) -> Seen:
    """DashScope's text generation, streamed."""
    with _dashscope(url) as options:
        answers = dashscope.Generation.call(recorded.model, prompt=QUESTION, stream=True, **options)
        assert isinstance(answers, Generator)
        return _of_dashscope(answers, recorded.model)


def dashscope_multimodal(url: str, recorded: Recorded) -> Seen:
    """DashScope's multimodal conversation."""
    messages = [{"role": "user", "content": [{"text": QUESTION}]}]
    with _dashscope(url) as options:
        answer = dashscope.MultiModalConversation.call(recorded.model, messages=messages, **options)
    return _of_dashscope([answer], recorded.model)


def dashscope_multimodal_streamed(url: str, recorded: Recorded) -> Seen:
    """DashScope's multimodal conversation, streamed."""
    messages = [{"role": "user", "content": [{"text": QUESTION}]}]
    with _dashscope(url) as options:
        answers = dashscope.MultiModalConversation.call(recorded.model, messages=messages, stream=True, **options)
        assert isinstance(answers, Generator)
        return _of_dashscope(answers, recorded.model)


def _of_total(answer: Any, model: str) -> Seen:  # noqa: ANN401 - a dict with attributes
    assert answer.status_code == 200
    total = (answer.usage or {}).get("total_tokens")
    return Seen(model, tokens(total, total=total))


def dashscope_embeddings(url: str, recorded: Recorded) -> Seen:
    """DashScope's text embeddings: all tokens are input."""
    with _dashscope(url) as options:
        return _of_total(dashscope.TextEmbedding.call(recorded.model, QUESTION, **options), recorded.model)


def dashscope_rerank(url: str, recorded: Recorded) -> Seen:
    """DashScope's rerank: all tokens are input."""
    with _dashscope(url) as options:
        return _of_total(dashscope.TextReRank.call(recorded.model, QUESTION, ["a", "b"], **options), recorded.model)


def _of_application(answers: Iterable[Any]) -> Seen:
    seen = Seen("", {})
    for answer in answers:
        assert answer.status_code == 200
        used = answer.usage.models
        # Only the answer names models; they are added up.
        counts = tokens(sum(model.input_tokens for model in used), sum(model.output_tokens for model in used))
        seen = Seen(used[0].model_id, counts, used[0].model_id)
    return seen


def dashscope_application(url: str, recorded: Recorded) -> Seen:  # noqa: ARG001 - no model is asked for
    """DashScope's applications."""
    with _dashscope(url) as options:
        return _of_application([dashscope.Application.call("app", QUESTION, **options)])


def dashscope_application_streamed(url: str, recorded: Recorded) -> Seen:  # noqa: ARG001 - no model is asked for
    """DashScope's applications, streamed."""
    with _dashscope(url) as options:
        answers = dashscope.Application.call("app", QUESTION, stream=True, **options)
        assert isinstance(answers, Generator)
        return _of_application(answers)


# Streams that the application gives up


def anthropic_message_left(url: str, recorded: Recorded) -> Seen:
    """Anthropic messages, left at the first text: what the SDK has by then are running counts."""
    with (
        _anthropic(url) as client,
        client.messages.stream(
            model=recorded.model, max_tokens=1024, messages=[{"role": "user", "content": QUESTION}]
        ) as stream,
    ):
        next(iter(stream.text_stream))
        answer = stream.current_message_snapshot
    return Seen(recorded.model, _of_message(answer), answer.model)


def ollama_chat_left(url: str, recorded: Recorded) -> Seen:
    """Ollama's chat, left at the first answer: the counts would have come with the last."""
    with ollama.Client(host=url) as client:
        answers = client.chat(model=recorded.model, messages=[{"role": "user", "content": QUESTION}], stream=True)
        assert isinstance(answers, Generator)
        seen = _of_ollama([next(answers)], recorded.model)
        answers.close()
    return seen


def bedrock_converse_left(url: str, recorded: Recorded) -> Seen:
    """Bedrock's ConverseStream, left at the first event: the counts would have come with the last."""
    with _bedrock(url) as client:
        answer = client.converse_stream(
            modelId=recorded.model, messages=[{"role": "user", "content": [{"text": QUESTION}]}]
        )
        assert next(iter(answer["stream"]))
        answer["stream"].close()
    return Seen(recorded.model, {})
