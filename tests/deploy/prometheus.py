"""Runs Prometheus, with the rules of deploy/, on a real Envoy and a real extproc."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
import yaml
from aiohttp import web
from aiohttp.typedefs import Handler

from extproc.demo import provider
from extproc.demo.processes import Address, Envoy, Server, envoy, extproc_server, load, serving, started

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
TRANSCRIPTS = ROOT / "tests" / "transcripts" / "openai_chat_completions"
HOST = "dashscope.aliyuncs.com"
MODELS = ("qwen-turbo", "qwen-thinking")

SECONDS = 45
INTERVAL = "500ms"

Labels = dict[str, str]


def tool(name: str) -> str:
    """Return where a program of Prometheus is; skip the test if it is nowhere, but fail it in CI."""
    found = shutil.which(name)
    if found is None:
        reason = f"needs {name}: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def rules() -> list[dict[str, Any]]:
    """Return all recording rules and alerts."""
    files = sorted((FOLDER / "rules").glob("*.yaml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


@dataclass
class Run:
    """Envoy and Prometheus, running; extproc is where they look for it only while it is `serving`."""

    envoy: Envoy
    prometheus_url: str
    address: Address
    metrics_address: Address
    released: asyncio.Event
    """Ends the answer that is held back."""
    session: aiohttp.ClientSession = field(repr=False)

    async def api(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - whatever Prometheus answers
        """Ask Prometheus's API."""
        async with self.session.get(f"{self.prometheus_url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", f"{parameters}: {answer['error']}"
        return answer["data"]

    async def query(self, expression: str) -> list[tuple[Labels, float]]:
        """Return what an expression is now."""
        answer = await self.api("query", query=expression)
        if answer["resultType"] == "scalar":
            return [({}, float(answer["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in answer["result"]]

    async def shown(self, expressions: Mapping[str, str]) -> dict[str, str]:
        """Wait until every expression gives a number other than 0; return those that do not in time."""
        missing = dict(expressions)
        try:
            async with asyncio.timeout(SECONDS):
                while missing:
                    for name, expression in list(missing.items()):
                        if any(value and not math.isnan(value) for _, value in await self.query(expression)):
                            del missing[name]
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pass
        return missing

    async def call(self, model: str, answer: str = "", **parts: object) -> None:
        """Make a call; `answer` names a transcript, or what else the upstream can do."""
        host, port = self.envoy.addresses["outbound"]
        body = {"model": model, "messages": [{"role": "user", "content": "What is a service mesh?"}], **parts}
        headers = {"host": HOST, **({"x-answer": answer} if answer else {})}
        async with self.session.post(f"http://{host}:{port}{provider.PATH}", headers=headers, json=body) as response:
            if answer == "aborted":
                await response.content.readline()
                response.close()
            else:
                await response.read()

    async def calls(self) -> None:
        """Make calls of every kind."""
        usage = {"include_usage": True}
        for model in MODELS:
            await asyncio.gather(
                self.call(model),
                self.call(model, "whole_cached_reasoning"),
                self.call(model, "whole_cache_write"),
                self.call(model, "unparsable"),
                self.call(model, stream=True, stream_options=usage),
                self.call(model, stream=True),
                self.call(model, "aborted", stream=True, stream_options=usage),
                self.call(model, messages=None),  # an error
            )
        host, port = self.envoy.addresses["outbound"]
        async with self.session.get(f"http://{host}:{port}/v1/models", headers={"host": HOST}) as response:
            await response.read()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Run extproc, make calls of every kind, let it hang and show it nonsense; end it all with the block."""
        options = ("--listen", _text(self.address), "--metrics", _text(self.metrics_address))
        names = ("--label-limit", "1", "--pinned-models", ",".join(MODELS))
        async with extproc_server(*options, *names) as server:
            await self.until('up{job="extproc"} == 1')
            await self.until_reached()
            await self.calls()
            await self.call("made-up-1")
            await self.call("made-up-2")
            await _nonsense(self.address)
            await self._hang(server)
            await self.until('up{job="extproc"} == 1')
            # Once more, so that series that Prometheus knows by now grow.
            await self.until('asm_llm_proxy_requests{outcome="aborted"}')
            await self.calls()
            held = asyncio.create_task(self.call(MODELS[0], "held", stream=True))
            try:
                yield
            finally:
                self.released.set()
                await held

    async def until(self, expression: str) -> None:
        """Wait until an expression is anything."""
        async with asyncio.timeout(SECONDS):
            while True:
                if await self.query(expression):
                    return
                await asyncio.sleep(0.1)

    async def until_reached(self) -> None:
        """Wait until Envoy, which found nobody there before, reaches extproc."""
        async with asyncio.timeout(SECONDS):
            while True:
                await self.call(MODELS[0])
                if (await self.envoy.log_line(len(self.envoy.log) - 1))["request_model"]:
                    return

    async def _hang(self, server: Server) -> None:
        server.process.process.send_signal(signal.SIGSTOP)
        try:
            await self.call(MODELS[0])
        finally:
            server.process.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def run() -> AsyncIterator[Run]:
    """Start Envoy and Prometheus, and make a call while there is no extproc."""
    program = tool("prometheus")
    released = asyncio.Event()
    with _reserved() as first, _reserved() as second:
        address, metrics_address = first.getsockname(), second.getsockname()
        async with _upstream(released) as upstream:
            clusters = {"dashscope": upstream, "other": upstream, "extproc": address}
            async with envoy(load(ROOT / "envoy" / "envoy.yaml", clusters)) as proxy:
                targets = {"extproc": _text(metrics_address), "envoy": proxy.admin_url.removeprefix("http://")}
                async with _prometheus(program, targets) as url, aiohttp.ClientSession() as session:
                    running = Run(proxy, url, address, metrics_address, released, session)
                    await running.until('up{job="extproc"} == 0')
                    await running.until("envoy_http_ext_proc_failure_mode_allowed == 0")
                    await running.call(MODELS[0])
                    await running.until("envoy_http_ext_proc_failure_mode_allowed > 0")
                    first.close()
                    second.close()
                    yield running


def _reserved() -> socket.socket:
    """Return a socket that keeps a port of its own, and at which nobody listens."""
    reserved = socket.socket()
    reserved.bind(("127.0.0.1", 0))
    return reserved


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


@asynccontextmanager
async def _upstream(released: asyncio.Event) -> AsyncIterator[Address]:
    """Run the demo's provider, which here can also give answers that were recorded, nonsense, or none for a while."""

    @web.middleware
    async def answers(request: web.Request, handler: Handler) -> web.StreamResponse:
        match request.headers.get("x-answer"):
            case None | "aborted":
                return await handler(request)
            case "unparsable":
                return web.Response(body=b'{"id": "chatcmpl-1", "choices": [{', content_type="application/json")
            case "held":
                await request.read()
                await released.wait()
                return web.Response(body=b"data: [DONE]\n\n", content_type="text/event-stream")
            case name:
                await request.read()
                _, _, body = (TRANSCRIPTS / name / "response.http").read_bytes().partition(b"\n\n")
                return web.Response(body=json.dumps(json.loads(body)).encode(), content_type="application/json")

    application = provider.application()
    application.middlewares.append(answers)
    async with serving(application) as address:
        yield address


@asynccontextmanager
async def _prometheus(program: str, targets: Mapping[str, str]) -> AsyncIterator[str]:
    """Run Prometheus on deploy/prometheus/prometheus.yml, but in a hurry and with these targets, by job."""
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    configuration["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), INTERVAL)
    configuration["rule_files"] = [str(FOLDER / name) for name in configuration["rule_files"]]
    for job in configuration["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    with TemporaryDirectory(prefix="extproc-") as folder:
        file = Path(folder, "prometheus.yml")
        file.write_text(json.dumps(configuration), encoding="utf-8")  # noqa: ASYNC240 - small and local
        command = [program, f"--config.file={file}", f"--storage.tsdb.path={folder}/data"]
        async with started([*command, "--web.listen-address=127.0.0.1:0"]) as process:
            number = 0
            while "Listening on" not in (line := await process.line(process.stderr, number)):
                number += 1
            url = "http://" + next(word for word in line.split() if word.startswith("address=")).partition("=")[2]
            async with asyncio.timeout(SECONDS), aiohttp.ClientSession() as session:
                while True:
                    async with session.get(f"{url}/-/ready") as response:
                        if response.ok:
                            break
                    await asyncio.sleep(0.05)
            yield url


async def _nonsense(address: Address) -> None:
    """Send extproc what is no message of Envoy's, and wait for its answer."""
    async with grpc.aio.insecure_channel(_text(address)) as channel:
        stream = channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process")()
        await stream.write(b"\xff")
        await stream.read()
        await stream.done_writing()
