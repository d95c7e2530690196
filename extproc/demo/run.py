"""The main job from end to end, and what every part of it says."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
import click
from prometheus_client.parser import text_string_to_metric_families

from extproc.demo import provider
from extproc.demo.processes import Envoy, ProcessError, Server, envoy, extproc_server, load, serving

HOST = "dashscope.aliyuncs.com"
LOG_FIELDS = ("duration", "response_code", "authority_for")
FACT_FIELDS = ("request_model", "request_prompt_tokens", "request_completion_tokens", "usage")
SOURCE = {"llmproxy_source_workload": "sleep", "llmproxy_source_workload_namespace": "default"}


class DemoError(Exception):
    """The demo did not show what it should; the message says what differs."""


@dataclass(frozen=True)
class Call:
    """A call to make."""

    title: str
    question: str = ""
    path: str = "/"
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    events: int | None = None
    """Events after which the client goes away."""


CALLS = (
    Call("a question to qwen-1.8b-chat", "What is a service mesh?", model="qwen-1.8b-chat"),
    Call(
        "a subscriber's question to qwen-turbo",
        "Tell me more about sidecars, please.",
        path=provider.PATH,
        model="qwen-turbo",
        headers={"user-type": "subscriber"},
    ),
    Call("a streamed answer", "And what is a gateway?", path=provider.PATH, model="qwen-turbo", stream=True),
    Call("a question that names no model", "Who are you?"),
    Call("a client that goes away in mid-stream", "Count to ten.", model="qwen-turbo", stream=True, events=3),
    Call("a path that is no call to a model", path="/compatible-mode/v1/models"),
)


@dataclass
class Setting:
    """What runs."""

    server: Server
    envoy: Envoy

    @property
    def url(self) -> str:
        """Where calls go."""
        host, port = self.envoy.addresses["outbound"]
        return f"http://{host}:{port}"


@dataclass(frozen=True)
class Answer:
    """What the client saw of a call."""

    model: str | None
    usage: Mapping[str, int] | None


def run(*, keep: bool) -> None:
    """Run the demo; with `keep`, leave everything running until Ctrl-C.

    Raises:
        DemoError: something did not start, or said something else than the client saw.
    """
    try:
        asyncio.run(_run(keep=keep))
    except ProcessError as error:
        raise DemoError(f"a process has ended:\n{error}") from None
    except asyncio.CancelledError:
        raise DemoError("ended by a signal") from None
    except TimeoutError:
        raise DemoError("something took too long") from None
    except OSError as error:
        raise DemoError(str(error)) from None


async def _run(*, keep: bool) -> None:
    if task := asyncio.current_task():
        # As Ctrl-C: everything that was started is ended.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with _setting() as setting:
        answers = []
        for number, call in enumerate(CALLS):
            answers.append(await make(call, setting.url))
            await setting.envoy.log_line(number)
        log = [await setting.envoy.log_line(number) for number in range(len(CALLS))]
        ours, envoys = await _ours(setting.server), await setting.envoy.prometheus()
        _show_log(log)
        _show_series("Envoy's own counters (its /stats/prometheus)", envoys, ("envoy_asm_llm_proxy_", "envoy_llm_"))
        _show_series("extproc's counters (its /metrics)", ours, ("asm_llm_proxy_",))
        check(answers, log, ours, envoys)
        click.secho("\nChecked", bold=True)
        click.echo(
            f"\n  {len(CALLS)} calls: the models and tokens that the client saw are those of the access log, of\n"
            "  Envoy's counters and of extproc's, by workload, host and model. What nobody reported is in none of them."
        )
        if keep:
            await _keep(setting)


@asynccontextmanager
async def _setting() -> AsyncIterator[Setting]:
    async with serving(provider.application()) as address, extproc_server() as server:
        clusters = {"dashscope": address, "other": address, "extproc": server.address}
        async with envoy(load(_configuration(), clusters)) as proxy:
            yield Setting(server, proxy)


def _configuration() -> Path:
    """Return envoy/envoy.yaml: of the checkout, or as it was installed."""
    installed = Path(str(resources.files("extproc.demo")), "envoy.yaml")
    return installed if installed.exists() else Path(__file__).parents[2] / "envoy" / "envoy.yaml"


async def make(call: Call, url: str) -> Answer:
    """Make a call through the Envoy at a URL; return what its client saw."""
    headers = {"host": HOST, **call.headers}
    async with aiohttp.ClientSession() as session:
        if not call.question:
            async with session.get(url + call.path, headers=headers) as response:
                await response.read()
            return Answer(None, None)
        body: dict[str, Any] = {"messages": [{"role": "user", "content": call.question}]}
        if call.model:
            body["model"] = call.model
        if call.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        async with session.post(url + call.path, headers=headers, json=body) as response:
            if not call.stream:
                answer = await response.json()
                return Answer(call.model or answer["model"], answer["usage"])
            usage, seen = None, 0
            async for line in response.content:
                if line.startswith(b"data: {"):
                    usage = json.loads(line[6:])["usage"]
                    seen += 1
                if seen == call.events:
                    response.close()
                    break
            return Answer(call.model, usage)


async def _ours(server: Server) -> str:
    """Return our metrics, once all streams have ended: of a client that goes away we hear a moment later than Envoy."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(10):
        while True:
            async with session.get(server.metrics_url) as response:
                text = await response.text()
            if "extproc_streams_open 0.0" in text:
                return text
            await asyncio.sleep(0.01)


def _show_log(log: list[dict[str, Any]]) -> None:
    click.secho("Envoy's access log, a line per call", bold=True)
    for call, line in zip(CALLS, log, strict=True):
        click.secho(f"\n  {call.title}", dim=True)
        click.echo("  " + json.dumps({name: line[name] for name in (*LOG_FIELDS, *FACT_FIELDS)}))


def _show_series(title: str, text: str, prefixes: tuple[str, ...]) -> None:
    click.secho(f"\n{title}\n", bold=True)
    for line in text.splitlines():
        if line.startswith(prefixes):
            click.echo(f"  {line}")


def check(answers: list[Answer], log: list[dict[str, Any]], ours: str, envoys: str) -> None:
    """Hold what everybody says against what the client saw.

    Raises:
        DemoError: somebody says something else.
    """
    tokens: Counter[tuple[str, str]] = Counter()
    requests: Counter[str] = Counter()
    for answer, line in zip(answers, log, strict=True):
        usage = answer.usage or {}
        _equal(
            "the access log",
            [line[name] for name in FACT_FIELDS[:3]],
            [answer.model, usage.get("prompt_tokens"), usage.get("completion_tokens")],
        )
        if answer.model:
            requests[answer.model] += 1
            for kind, count in usage.items():
                tokens[kind, answer.model] += count
    for kind in ("prompt_tokens", "completion_tokens"):
        expected = {model: count for (name, model), count in tokens.items() if name == kind}
        labels = {**SOURCE, "llmproxy_destination_service": HOST}
        _equal(f"Envoy's {kind}", _by(envoys, f"envoy_asm_llm_proxy_{kind}", "llmproxy_model", labels), expected)
        _equal(f"extproc's {kind}", _by(ours, f"asm_llm_proxy_{kind}", "llmproxy_model", labels), expected)
    _equal("Envoy's requests", _by(envoys, "envoy_llm_requests_total", "model", {}), requests)
    _equal("extproc's requests", _by(ours, "asm_llm_proxy_requests", "llmproxy_model", SOURCE), requests)


def _by(text: str, name: str, label: str, where: Mapping[str, str]) -> dict[str, int]:
    """Add up the samples `name` that have the labels `where`, by another label."""
    sums: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # The parser gives counters the suffix of OpenMetrics.
            if name in (sample.name, sample.name.removesuffix("_total")) and where.items() <= sample.labels.items():
                sums[sample.labels[label]] += int(sample.value)
    return dict(sums)


def _equal(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise DemoError(f"{what}: {found} where the client saw {expected}")


async def _keep(setting: Setting) -> None:
    body = '{"model": "qwen-turbo", "messages": [{"role": "user", "content": "Hello"}]}'
    click.secho("\nTry it; Ctrl-C ends it\n", bold=True)
    click.echo(f"  curl {setting.url} -H 'Host: {HOST}' -H 'Content-Type: application/json' -d '{body}'")
    click.echo(f"  curl {setting.envoy.admin_url}/stats/prometheus | grep asm_llm_proxy")
    click.echo(f"  curl {setting.server.metrics_url}")
    click.echo()
    ending = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    shown = len(CALLS)
    while not ending.is_set():
        next_line = asyncio.create_task(setting.envoy.process.line(setting.envoy.log, shown, seconds=None))
        waiting = asyncio.create_task(ending.wait())
        await asyncio.wait({next_line, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if next_line.done():
            click.echo(f"  {next_line.result()}")
            shown += 1
        next_line.cancel()
