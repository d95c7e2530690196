"""envoy/envoy-quota.yaml on a real Envoy, with a rate limit service that counts as the reference one does."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptor
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest, RateLimitResponse, RateLimitResponseCode

from extproc.demo.processes import Address, Envoy, Server, envoy, load
from tests.envoy.client import ask, connected, post, request
from tests.envoy.grpc_service import serving
from tests.envoy.message import SECONDS, Message, chunk, chunked, head
from tests.envoy.setting import FOLDER, Configuration, connection_manager, ours
from tests.envoy.upstream import Call, Script, Upstream, answer
from tests.samples import total

pytestmark = pytest.mark.asyncio(loop_scope="session")

FILE = FOLDER / "envoy-quota.yaml"
TEXT = FILE.read_text(encoding="utf-8")
PATH = "/v1/chat/completions"
STREAM = head("HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked")

Change = Callable[[Configuration], None]
Ask = Callable[[Address], Awaitable[object]]


class RateLimitService:
    """Keeps the counts of one window in memory.

    As github.com/envoyproxy/ratelimit does: hits of 0 are a question, absent ones count 1, and over the limit is who is
    above it after counting. Its limits are those in the head of the file.
    """

    def __init__(self) -> None:
        snippet = re.search(r"\n#   domain:.*?\n#\n", TEXT, re.DOTALL)
        assert snippet is not None
        self.configuration = yaml.safe_load(snippet[0].replace("\n#   ", "\n").rstrip("#\n"))
        self.used: Counter[str] = Counter()
        self.questions: Counter[str] = Counter()
        self._news = asyncio.Condition()

    async def should_rate_limit(self, data: bytes) -> bytes:
        """Be RateLimitService/ShouldRateLimit."""
        asked = RateLimitRequest.parse(data)
        assert asked.domain == self.configuration["domain"]
        code = RateLimitResponseCode.OK
        async with self._news:
            for descriptor in asked.descriptors:
                name = "/".join(entry.value for entry in descriptor.entries)
                hits = max(1, asked.hits_addend) if descriptor.hits_addend is None else descriptor.hits_addend
                self.used[name] += hits
                self.questions[name] += hits == 0
                if self.used[name] > self.limit(descriptor):
                    code = RateLimitResponseCode.OVER_LIMIT
            self._news.notify_all()
        return bytes(RateLimitResponse(overall_code=code))

    def limit(self, descriptor: RateLimitDescriptor) -> int:
        """Return the limit of the most specific descriptor in the configuration."""
        level = self.configuration
        for entry in descriptor.entries:
            fitting = [item for item in level["descriptors"] if item["key"] == entry.key]
            level = next(
                item for item in sorted(fitting, key=len, reverse=True) if item.get("value") in {None, entry.value}
            )
        limit: int = level["rate_limit"]["requests_per_unit"]
        return limit

    async def charged(self, name: str, tokens: int) -> None:
        """Wait until a descriptor has used so many tokens: Envoy does not wait for the charge."""
        async with asyncio.timeout(SECONDS), self._news:
            await self._news.wait_for(lambda: self.used[name] >= tokens)
        assert self.used[name] == tokens


@dataclass
class Setting:
    """What runs."""

    service: RateLimitService
    envoy: Envoy
    upstream: Upstream
    calls: int = 0

    @property
    def address(self) -> Address:
        """Where calls go."""
        return self.envoy.addresses["outbound"]

    async def call(self, user: str | None, tokens: int) -> str:
        """Make a call as somebody, with an answer that reports so many tokens; return the status."""
        self.upstream.script = answer(whole(usage=reported(tokens)))
        self.calls += 1
        return (await ask(self.address, asked(user))).start

    async def last_line(self) -> dict[str, Any]:
        """Return the line of the last call in the access log, that is, when it has ended."""
        return await self.envoy.log_line(self.calls - 1)

    async def settled(self) -> None:
        """Wait until all calls have ended, and Envoy has charged what it charges for them.

        It sends in order: what comes before the charge for a later call, comes before that.
        """
        await self.last_line()
        await self.call("later", 10)
        await self.service.charged("tokens/later", 10)


def requests_counted(metrics: str) -> float:
    """Return how many calls to a model we have counted."""
    return total(metrics, "asm_llm_proxy_requests") or 0.0


def asked(user: str | None, path: str = PATH) -> bytes:
    """Return a question."""
    headers = () if user is None else (f"x-user-id: {user}",)
    return post(path, b'{"model": "qwen-turbo", "messages": []}', *headers)


def reported(tokens: int) -> dict[str, int]:
    """Return a usage of so many tokens."""
    return {"prompt_tokens": tokens - tokens // 10, "completion_tokens": tokens // 10, "total_tokens": tokens}


def whole(**values: object) -> bytes:
    """Return an answer in one piece."""
    body = json.dumps({"model": "qwen-turbo", "choices": [], **values}).encode()
    return head("HTTP/1.1 200 OK", "content-type: application/json", f"content-length: {len(body)}") + body


def event(**values: object) -> bytes:
    """Return an event of a stream, in a chunk of its own."""
    data = {"model": "qwen-turbo", "choices": [{"delta": {"content": "Hel"}}], "usage": None, **values}
    return chunk(b"data: " + json.dumps(data).encode() + b"\n\n")


def policies(configuration: Configuration) -> list[dict[str, Any]]:
    """Return what Envoy asks: when the request comes, and when the call has ended."""
    host = connection_manager(configuration)["route_config"]["virtual_hosts"][0]
    found: list[dict[str, Any]] = host["typed_per_filter_config"]["envoy.filters.http.ratelimit"]["rate_limits"]
    return found


@asynccontextmanager
async def running(
    upstream: Upstream, server: Server, change: Change | None = None, service: Address | None = None
) -> AsyncIterator[Setting]:
    """Run Envoy on envoy-quota.yaml, with changes if there are any, and the service, unless it is elsewhere."""
    counts = RateLimitService()
    name = "envoy.service.ratelimit.v3.RateLimitService"
    upstream.begin(answer())
    async with serving(name, "ShouldRateLimit", counts.should_rate_limit) as address:
        clusters = {"provider": upstream.address, "extproc": server.address, "ratelimit": service or address}
        # YAML's aliases are one object in several places.
        configuration = json.loads(json.dumps(load(FILE, clusters)))
        if change:
            change(configuration)
        async with envoy(configuration) as proxy:
            yield Setting(counts, proxy, upstream)


async def test_who_has_used_up_its_tokens_is_refused(upstream: Upstream, server: Server) -> None:
    """Calls are served and charged with what their answers reported, until that is more than the limit.

    Then the caller gets a 429 and the provider does not see the call. Others are served. In our counters, a refused
    call is no call to a model.
    """
    before = requests_counted(await ours(server))
    async with running(upstream, server) as setting:
        for number, tokens in enumerate((400_000, 100_000, 499_999, 1, 300_000), start=1):
            assert await setting.call("ann", tokens) == "200"
            await setting.service.charged("tokens/ann", sum((400_000, 100_000, 499_999, 1, 300_000)[:number]))
        for _ in range(2):
            assert await setting.call("ann", 5) == "429"
            assert (await setting.last_line())["response_flags"] == "RL"
        assert len(upstream.requests) == 5
        assert await setting.call("ben", 5) == "200"
        await setting.settled()
        assert setting.service.used == {"tokens/ann": 1_300_000, "tokens/ben": 5, "tokens/later": 10}
    assert requests_counted(await ours(server)) == before + 5 + 1 + 1


async def test_the_provider_is_not_told_who_calls(upstream: Upstream, server: Server) -> None:
    """The caller's name stays in Envoy."""
    async with running(upstream, server) as setting:
        assert await setting.call("ann", 5) == "200"
        assert "ann" not in str(upstream.requests[0].headers)


@pytest.mark.parametrize("user", [None, ""])
async def test_who_gives_no_name_is_limited_too(user: str | None, upstream: Upstream, server: Server) -> None:
    """All callers without a name share a budget of their own."""
    async with running(upstream, server) as setting:
        assert await setting.call(user, 50_001) == "200"
        await setting.service.charged("tokens", 50_001)
        assert await setting.call(user, 5) == "429"
        assert await setting.call("ann", 5) == "200"


async def test_a_caller_can_have_a_limit_of_its_own(upstream: Upstream, server: Server) -> None:
    """The more special descriptor of the service's configuration is the one that holds."""
    async with running(upstream, server) as setting:
        assert await setting.call("batch", 20_000_000) == "200"
        await setting.service.charged("tokens/batch", 20_000_000)
        assert await setting.call("batch", 1) == "200"
        await setting.service.charged("tokens/batch", 20_000_001)
        assert await setting.call("batch", 1) == "429"


async def test_calls_at_the_same_time_can_overshoot(upstream: Upstream, server: Server) -> None:
    """Calls that were let in before the others were charged are served, and charged, to the last token."""
    all_there = asyncio.Barrier(3)

    async def together(call: Call) -> None:
        await call.request.all()
        await all_there.wait()
        await call.send(whole(usage=reported(900_000)))

    async with running(upstream, server) as setting:
        upstream.script = together
        calls = [ask(setting.address, asked("ann")) for _ in range(3)]
        assert [message.start for message in await asyncio.gather(*calls)] == ["200"] * 3
        await setting.service.charged("tokens/ann", 2_700_000)
        assert await setting.call("ann", 5) == "429"


async def asking(address: Address) -> Message:
    """Make a call and read the answer."""
    return await ask(address, asked("ann"))


async def breaking_off(address: Address) -> None:
    """Make a call, and go away when the answer has begun."""
    async with connected(address) as client:
        await client.send(asked("ann"))
        await client.response().until(lambda message: message.body)


async def posting_a_file(address: Address) -> Message:
    """Post something that is no question to a model."""
    return await ask(address, asked("ann", "/v1/files"))


async def getting_models(address: Address) -> Message:
    """Ask for something without a body."""
    return await ask(address, request("/v1/models", None, "x-user-id: ann", method="GET"), method="GET")


def unfinished(*pieces: bytes) -> Script:
    """Begin to answer, and wait for the client to go."""

    async def script(call: Call) -> None:
        await call.request.all()
        await call.send(*pieces)
        await call.gone()

    return script


@dataclass(frozen=True)
class Case:
    """What each end does, and what it costs."""

    script: Script
    cost: int
    ask: Ask = asking


CASES = {
    "whole": Case(answer(whole(usage=reported(50))), 50),
    "total not reported": Case(answer(whole(usage={"prompt_tokens": 11, "completion_tokens": 7})), 18),
    "streamed": Case(answer(STREAM, event(), event(usage=reported(50)), chunked(b"data: [DONE]\n\n")), 50),
    "streamed without usage": Case(answer(STREAM, event(), chunked(b"data: [DONE]\n\n")), 0),
    "without usage": Case(answer(whole()), 0),
    "nothing used": Case(answer(whole(usage=reported(0))), 0),
    "broken off": Case(unfinished(STREAM, event()), 0, breaking_off),
    "broken off with usage so far": Case(unfinished(STREAM, event(usage=reported(50))), 50, breaking_off),
    "refused by the provider": Case(answer(head("HTTP/1.1 429 Too Many Requests", "content-length: 0")), 0),
    "no call to a model": Case(answer(whole(usage=reported(50))), 0, posting_a_file),
    "no call to a model, without a body": Case(answer(whole(usage=reported(50))), 0, getting_models),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_call_costs_what_its_answer_reported(name: str, upstream: Upstream, server: Server) -> None:
    """Nothing that was not reported is charged, not even 1; nor is the question whether there are tokens left."""
    case = CASES[name]
    async with running(upstream, server) as setting:
        upstream.script = case.script
        setting.calls = 1
        await case.ask(setting.address)
        await setting.settled()
        assert setting.service.used == {"tokens/ann": case.cost, "tokens/later": 10}
        assert setting.service.questions["tokens/ann"] == 1 + (name == "nothing used")


def weighed(configuration: Configuration) -> None:
    """Charge by the format that the head of the file gives."""
    found = re.search(r'format: "(%CEL.*?%)"', TEXT, re.DOTALL)
    assert found is not None
    policies(configuration)[1]["hits_addend"]["format"] = re.sub(r"\n#\s+", " ", found[1])


def by_workload(configuration: Configuration) -> None:
    """Charge Envoy's own workload."""
    assert "`- source_cluster: {}`" in TEXT
    configuration["node"] = {"id": "sleep-7f9c6d", "cluster": "sleep.default"}
    for policy in policies(configuration):
        policy["actions"][1] = {"source_cluster": {}}


@pytest.mark.parametrize(
    ("change", "name", "cost"), [(weighed, "tokens/ann", 90 + 4 * 10), (by_workload, "tokens/sleep.default", 100)]
)
async def test_what_the_comments_offer_works(
    change: Change, name: str, cost: int, upstream: Upstream, server: Server
) -> None:
    """Tokens of the answer can weigh more; the workload can be charged in place of the user."""
    async with running(upstream, server, change) as setting:
        assert await setting.call("ann", 100) == "200"
        await setting.service.charged(name, cost)


def denying(configuration: Configuration) -> None:
    """Refuse calls when the service is down."""
    limit = next(item for item in connection_manager(configuration)["http_filters"] if "ratelimit" in item["name"])
    assert limit["typed_config"]["failure_mode_deny"] is False
    limit["typed_config"]["failure_mode_deny"] = True


@pytest.fixture
def nowhere() -> Iterator[Address]:
    """Return an address where nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()


@pytest.mark.parametrize(("change", "status"), [(None, "200"), (denying, "500")])
async def test_when_the_service_is_down(
    change: Change | None, status: str, upstream: Upstream, server: Server, nowhere: Address
) -> None:
    """Calls go on, call after call, or are refused if that is wanted."""
    async with running(upstream, server, change, service=nowhere) as setting:
        assert [await setting.call("ann", 5) for _ in range(3)] == [status] * 3
        assert len(upstream.requests) == (3 if status == "200" else 0)
