"""Our EnvoyFilters on a real Envoy, of each version that Istio's proxies have inside.

Istio's own filters are not in that Envoy: istio.stats (so the names of our counters keep their prefix here), the
exchange of peer metadata (so a gateway does not know its callers here), alpn.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from extproc.config.options import IstioOptions
from extproc.demo import provider
from extproc.demo.processes import Envoy, Server, envoy, extproc_server, serving
from tests.deploy.envoy_versions import RELEASES, Release, binary
from tests.deploy.istio_options import options
from tests.deploy.istio_patch import Proxy
from tests.deploy.istio_proxy import OTHER, configuration

# The time is for fetching a hundred megabytes.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

DASHSCOPE = "dashscope.aliyuncs.com"
LABELS = (
    "llmproxy_source_workload",
    "llmproxy_source_workload_namespace",
    "llmproxy_destination_service",
    "llmproxy_model",
)
Series = dict[tuple[str, ...], int]


@dataclass
class Seen:
    """What reached the provider and the collector of spans."""

    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    digest: str = ""
    spans: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)


@dataclass
class Mesh:
    """What runs: a proxy of one version, our server, a provider."""

    release: Release
    envoy: Envoy
    server: Server
    seen: Seen
    logged: int = 0

    async def call(
        self, host: str, path: str = "/", body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[bytes, dict[str, Any]]:
        """Make a call through the proxy; return the answer's body, and the line of the access log."""
        (address,) = self.envoy.addresses.values()
        url = f"http://{address[0]}:{address[1]}{path}"
        method, data = ("GET", None) if body is None else ("POST", io.BytesIO(json.dumps(body).encode()))
        headers = {"host": host, "content-type": "application/json", **(headers or {})}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, data=data, headers=headers) as response,
        ):
            answer = await response.read()
        assert ("Content-Length" in response.headers) == (response.content_type == "application/json")
        assert response.status == 200, answer
        line = await self.envoy.log_line(self.logged)
        self.logged += 1
        return answer, line

    async def ours(self) -> str:
        """Return our own metrics."""
        async with aiohttp.ClientSession() as session, session.get(self.server.metrics_url) as response:
            return await response.text()


@asynccontextmanager
async def mesh(
    release: Release, asked: IstioOptions, context: str = "SIDECAR_OUTBOUND", *serve: str
) -> AsyncIterator[Mesh]:
    """Run everything; the proxy's version of Istio decides which variants of the patches it gets."""
    path = binary(release.envoy)
    seen = Seen()
    gateway = context == "GATEWAY"
    proxy = Proxy(
        version=release.istio,
        context=context,
        namespace="istio-system" if gateway else "default",
        labels={"istio": "ingressgateway"} if gateway else {"app": "sleep"},
    )
    async with (
        serving(_provider(seen)) as address,
        serving(_collector(seen)) as zipkin,
        extproc_server(*serve) as server,
    ):
        addresses = {"provider": address, "zipkin": zipkin, "server": server.address}
        async with envoy(configuration(asked, proxy, addresses), path) as running:
            yield Mesh(release, running, server, seen)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=RELEASES, ids=str)
async def sidecar(request: pytest.FixtureRequest) -> AsyncIterator[Mesh]:
    """Run a sidecar with the manifests of deploy/istio."""
    async with mesh(request.param, options()) as running:
        yield running


async def test_calls_of_the_outcome(sidecar: Mesh) -> None:
    """A call without a path, another route by `user-type`, a stream: log, counters and spans tell what was seen."""
    before = await _counted(sidecar)

    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Who are you?"}]}
    answer, line = await sidecar.call(DASHSCOPE, body=asked)
    assert sidecar.seen.path == provider.PATH
    assert _facts(line) == ["qwen-plus", 3, 5] == [json.loads(answer)["model"], *_usage(answer)]
    assert (line["authority_for"], line["route_name"], line["usage"]) == (DASHSCOPE, "llm-short", "reported")

    asked |= {"model": "qwen-turbo"}
    answer, line = await sidecar.call(DASHSCOPE, body=asked, headers={"user-type": "subscriber"})
    assert (_facts(line), line["route_name"]) == (["qwen-turbo", *_usage(answer)], "llm-subscriber-short")
    assert sidecar.seen.path == provider.PATH

    asked |= {"stream": True, "stream_options": {"include_usage": True}}
    answer, line = await sidecar.call("api.openai.com", provider.PATH, asked)
    assert (_facts(line), line["route_name"]) == (["qwen-turbo", 3, 5], "llm-default")
    assert answer.endswith(b"data: [DONE]\n\n")

    expected = {
        "prompt_tokens": {
            (DASHSCOPE, "qwen-plus"): 3,
            (DASHSCOPE, "qwen-turbo"): 3,
            ("api.openai.com", "qwen-turbo"): 3,
        },
        "completion_tokens": {
            (DASHSCOPE, "qwen-plus"): 5,
            (DASHSCOPE, "qwen-turbo"): 5,
            ("api.openai.com", "qwen-turbo"): 5,
        },
    }
    counted = await _counted(sidecar)
    for who, names in before.items():
        for name, series in names.items():
            more = {key: count - series.get(key, 0) for key, count in counted[who][name].items()}
            wanted = {("sleep", "default", *key): count for key, count in expected[name].items()}
            assert more == (wanted if who == "ours" or sidecar.release.istio_minor >= (1, 30) else {}), (who, name)
    # istio.stats would print what it cannot know as `unknown`; here the tag has the model that the log has.
    await _spans(sidecar, {"qwen-plus": ("3", "5"), "qwen-turbo": ("3", "5")})


async def test_other_calls_are_let_alone(sidecar: Mesh) -> None:
    """Another host on the port is never shown to us; of another path of the host, only the request's headers are."""
    before = _messages(await sidecar.ours())
    _, line = await sidecar.call(OTHER, "/compatible-mode/v1/models")
    assert _facts(line) == [None, None, None]
    assert _messages(await sidecar.ours()) == before
    _, line = await sidecar.call(DASHSCOPE, "/compatible-mode/v1/models")
    assert _facts(line) == [None, None, None]
    after = _messages(await sidecar.ours())
    assert {phase: after[phase] - before.get(phase, 0) for phase in after} == {
        phase: int(phase == "request_headers") for phase in after
    }
    faults = [line for line in sidecar.envoy.process.stderr if "[error]" in line or "[critical]" in line]
    assert faults == []


async def test_bodies_pass_unchanged(sidecar: Mesh) -> None:
    """A body of 3 MB passes through buffers of 32 KiB with its Content-Length, and is read."""
    asked = {"messages": [{"role": "user", "content": "word " * 600_000}], "model": "qwen-turbo"}
    sent = json.dumps(asked).encode()
    answer, line = await sidecar.call(DASHSCOPE, body=asked)
    assert sidecar.seen.headers["Content-Length"] == str(len(sent))
    assert "Transfer-Encoding" not in sidecar.seen.headers
    assert sidecar.seen.digest == hashlib.sha256(sent).hexdigest()
    assert _facts(line) == ["qwen-turbo", 600_000, 600_002] == ["qwen-turbo", *_usage(answer)]


@pytest.mark.parametrize("release", RELEASES, ids=str)
async def test_gateway(release: Release) -> None:
    """A gateway does what a sidecar does; a caller that it does not know counts as the gateway."""
    async with mesh(release, options(), "GATEWAY") as gateway:
        answer, line = await gateway.call(DASHSCOPE, body={"messages": [{"role": "user", "content": "Hello"}]})
        assert (_facts(line), line["route_name"]) == (["qwen-plus", *_usage(answer)], "llm-short")
        _, line = await gateway.call(OTHER, "/compatible-mode/v1/models")
        assert _facts(line) == [None, None, None]
        expected = {("istio-ingressgateway", "istio-system", DASHSCOPE, "qwen-plus"): 1}
        counted = await _counted(gateway)
        assert counted["ours"]["prompt_tokens"] == expected
        assert counted["envoy's"]["prompt_tokens"] == (expected if release.istio_minor >= (1, 30) else {})


@pytest.mark.parametrize("release", RELEASES, ids=str)
async def test_calls_go_on_without_the_server(release: Release) -> None:
    """With our server gone, calls pass as before and are not counted."""
    async with mesh(release, options()) as running:
        asked = {"messages": [{"role": "user", "content": "Hello"}], "model": "qwen-turbo"}
        _, line = await running.call(DASHSCOPE, body=asked)
        assert _facts(line) == ["qwen-turbo", 1, 3]
        process = running.server.process.process
        process.terminate()
        await process.wait()
        answer, line = await running.call(DASHSCOPE, body=asked)
        assert _usage(answer) == [1, 3]
        assert (_facts(line), line["response_code"]) == ([None, None, None], 200)
        assert sum((await _envoys(running, "prompt_tokens")).values()) == int(release.istio_minor >= (1, 30))


@pytest.mark.parametrize("release", RELEASES, ids=str)
async def test_manifests_for_one_version(release: Release) -> None:
    """Manifests that are written for one version of Istio do what those for all versions do."""
    version = ".".join(map(str, release.istio_minor))
    async with mesh(release, options("--istio-version", version, "--workload-selector", "app=sleep")) as running:
        asked = {"messages": [{"role": "user", "content": "Hello"}], "model": "qwen-turbo"}
        _, line = await running.call(DASHSCOPE, body=asked)
        assert (_facts(line), line["route_name"]) == (["qwen-turbo", 1, 3], "llm-short")
        assert running.seen.headers["Content-Length"] == str(len(json.dumps(asked)))
        assert sum((await _envoys(running, "prompt_tokens")).values()) == int(release.istio_minor >= (1, 30))
        await _spans(running, {"qwen-turbo": ("1", "3")})


@pytest.mark.parametrize("release", RELEASES, ids=str)
async def test_a_server_beside_the_proxy(release: Release) -> None:
    """Over a Unix socket that both see, the server counts as it does over the network."""
    with TemporaryDirectory(prefix="extproc-") as folder:  # short: a socket's path has at most 107 bytes
        address = f"unix:{folder}/extproc.sock"
        beside = options("--server-address", address, "--gateway", "none")
        async with mesh(release, beside, "SIDECAR_OUTBOUND", "--listen", address) as running:
            _, line = await running.call(DASHSCOPE, body={"messages": [{"role": "user", "content": "Hello"}]})
            assert _facts(line) == ["qwen-plus", 1, 3]
            counted = await _counted(running)
            assert counted["ours"]["prompt_tokens"] == {("sleep", "default", DASHSCOPE, "qwen-plus"): 1}


# What they say


def _facts(line: dict[str, Any]) -> list[Any]:
    return [line[name] for name in ("request_model", "request_prompt_tokens", "request_completion_tokens")]


def _usage(answer: bytes) -> list[int]:
    usage = json.loads(answer)["usage"]
    return [usage["prompt_tokens"], usage["completion_tokens"]]


async def _counted(running: Mesh) -> dict[str, dict[str, Series]]:
    names = ("prompt_tokens", "completion_tokens")
    ours = await running.ours()
    return {
        "ours": {name: _series(ours, f"asm_llm_proxy_{name}") for name in names},
        "envoy's": {name: await _envoys(running, name) for name in names},
    }


async def _envoys(running: Mesh, name: str) -> Series:
    return _series(await running.envoy.prometheus(), f"envoy_istiocustom_asm_llm_proxy_{name}")


def _series(text: str, name: str) -> Series:
    return {
        tuple(sample.labels[label] for label in LABELS): int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.removesuffix("_total") == name
    }


def _messages(text: str) -> dict[str, int]:
    return {
        sample.labels["phase"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.removesuffix("_total") == "extproc_messages"
    }


async def _spans(running: Mesh, expected: dict[str, tuple[str, str]]) -> None:
    """Read spans until those with these models, input and output tokens are there."""
    found: dict[str, tuple[str, str]] = {}
    async with asyncio.timeout(30):
        while not expected.items() <= found.items():
            tags = (await running.seen.spans.get())["tags"]
            if model := tags.get("gen_ai.request.model"):
                assert tags["gen_ai.response.model"] == model
                found[model] = (tags["gen_ai.usage.input_tokens"], tags["gen_ai.usage.output_tokens"])


# What runs beside


def _provider(seen: Seen) -> web.Application:
    @web.middleware
    async def record(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        seen.path, seen.headers = request.path, dict(request.headers)
        seen.digest = hashlib.sha256(await request.read()).hexdigest()
        return await handler(request)

    application = provider.application()
    application.middlewares.append(record)
    return application


def _collector(seen: Seen) -> web.Application:
    async def collect(request: web.Request) -> web.Response:
        for span in await request.json():
            seen.spans.put_nowait(span)
        return web.Response(status=202)

    application = web.Application()
    application.router.add_post("/api/v2/spans", collect)
    return application
