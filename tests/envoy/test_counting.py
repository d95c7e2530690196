"""What the log line, Envoy's counters and ours say of an exchange, however it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from extproc import formats
from extproc.demo.processes import Envoy, Server, extproc_server
from extproc.metrics import Metrics
from extproc.settings import Settings
from extproc.stream import Observer, Stream
from extproc.wire.ext_proc_pb2 import ProcessingRequest
from tests.envoy.cases import CHUNKED, JSON, SSE, Steps, seen, whole
from tests.envoy.client import HOST, Client, ask, connected, post, request
from tests.envoy.grpc_service import Context, processing
from tests.envoy.message import Incoming, chunk, chunked, head
from tests.envoy.setting import Configuration, facts, logged, ours, proxy, routes
from tests.envoy.upstream import Call, Upstream, answer
from tests.samples import total
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

DONE = b"data: [DONE]\n\n"
FAILED = b'{"error": {"message": "Rate limit reached", "type": "requests"}}'
ANSWER = whole(b'{"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}')
NO_USAGE = whole(b'{"choices": []}')


def asked(model: str, path: str, *headers: str) -> bytes:
    """Return a call to a model."""
    return post(path, json.dumps({"model": model}).encode(), *headers)


def running_counts(model: str, completion_tokens: int) -> bytes:
    """Return an event of a stream with continuous usage, as vLLM sends it."""
    usage = {"prompt_tokens": 46, "completion_tokens": completion_tokens}
    choices = [{"index": 0, "delta": {"content": " a"}}]
    return b"data: %b\n\n" % json.dumps({"model": model, "choices": choices, "usage": usage}).encode()


def counted(text: str, model: str, prefix: str = "") -> dict[str, float | None]:
    """Return what was counted of a model: requests by outcome and usage, and tokens."""
    names = ("prompt_tokens", "completion_tokens")
    return {name: total(text, f"{prefix}asm_llm_proxy_{name}", llmproxy_model=model) for name in names}


async def check(server: Server, running: Envoy, model: str, tokens: tuple[int, int] | None, **labels: str) -> None:
    """Hold our counters and Envoy's against what one exchange with a model of its own used; labels are ours only."""
    text, envoys = await ours(server), await running.prometheus()
    expected = dict(zip(("prompt_tokens", "completion_tokens"), tokens or (None, None), strict=True))
    assert counted(text, model) == expected
    assert counted(envoys, model, "envoy_") == expected
    assert total(text, "asm_llm_proxy_requests", llmproxy_model=model) == 1
    assert total(text, "asm_llm_proxy_requests", llmproxy_model=model, **labels) == 1
    assert total(envoys, "envoy_llm_requests_total", model=model) == 1


@asynccontextmanager
async def stream(running: Envoy, upstream: Upstream, model: str) -> AsyncIterator[tuple[Client, Incoming, Steps]]:
    """Ask for a stream, wait for its beginning; the path is that of the model."""
    steps = Steps()
    upstream.begin(steps.script)
    async with connected(running.addresses["outbound"]) as client:
        await client.send(asked(model, f"/{model}/v1/chat/completions"))
        steps.send(head("HTTP/1.1 200 OK", *SSE, CHUNKED))
        response = client.response()
        await response.head()
        yield client, response, steps
    steps.done()


async def test_the_model_is_known_before_the_answer(upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """A client that goes away before the first byte of the answer leaves its model in the log line and the counters."""
    arrived = asyncio.Event()

    async def script(call: Call) -> None:
        await call.request.all()
        arrived.set()
        await call.gone()

    upstream.begin(script)
    path = "/early/v1/chat/completions"
    async with connected(proxied.addresses["outbound"]) as client:
        await client.send(asked("early", path))
        await arrived.wait()
    line = await logged(proxied, path)
    assert facts(line) == ["early", None, None, "missing"]
    assert line["response_flags"] == "DC"
    await check(server, proxied, "early", None, outcome="aborted", usage="missing", response_code="0")


@pytest.mark.parametrize("reset", [False, True])
async def test_an_abort_keeps_the_running_counts(
    upstream: Upstream, proxied: Envoy, server: Server, *, reset: bool
) -> None:
    """A client that closes or resets in mid-stream is counted once, with the last counts that it was sent."""
    model = f"abort-{reset}"
    async with stream(proxied, upstream, model) as (client, response, steps):
        for number in range(4):
            event = running_counts(model, number)
            steps.send(chunk(event))
            await response.body(event)
        if reset:
            client.reset()
        else:
            client.close()
    assert facts(await logged(proxied, f"/{model}/v1/chat/completions")) == [model, 46, 3, "partial"]
    await check(server, proxied, model, (46, 3), outcome="aborted", usage="partial", response_code="200")


async def test_a_stream_reset_by_an_http2_client(upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """As above, for a client that cancels its stream and keeps the connection."""
    model = "cancelled"
    path = f"/{model}/v1/chat/completions"
    steps = Steps()
    upstream.begin(steps.script)
    event = running_counts(model, 5)
    steps.send(head("HTTP/1.1 200 OK", *SSE, CHUNKED), chunk(event))
    reader, writer = await asyncio.open_connection(*proxied.addresses["outbound"])
    http2 = H2Connection(H2Configuration(client_side=True))
    http2.initiate_connection()
    http2.send_headers(
        1, [(":method", "POST"), (":path", path), (":authority", HOST), (":scheme", "http")], end_stream=False
    )
    http2.send_data(1, json.dumps({"model": model}).encode(), end_stream=True)
    writer.write(http2.data_to_send())
    received = b""
    while not received.endswith(event):
        data = await reader.read(65536)
        assert data
        received += b"".join(getattr(item, "data", b"") or b"" for item in http2.receive_data(data))
    http2.reset_stream(1, ErrorCodes.CANCEL)
    writer.write(http2.data_to_send())
    assert facts(await logged(proxied, path)) == [model, 46, 5, "partial"]
    await check(server, proxied, model, (46, 5), outcome="aborted", usage="partial", response_code="200")
    steps.done()
    writer.close()
    await writer.wait_closed()


async def test_who_leaves_after_the_last_event_missed_nothing(
    upstream: Upstream, proxied: Envoy, server: Server
) -> None:
    """Clients may close after `[DONE]`, before the upstream ends the stream: that is complete and reported."""
    model = "done"
    async with stream(proxied, upstream, model) as (_, response, steps):
        steps.send(chunk(running_counts(model, 7)), chunk(DONE))
        await response.body(DONE)
    assert facts(await logged(proxied, f"/{model}/v1/chat/completions")) == [model, 46, 7, "reported"]
    await check(server, proxied, model, (46, 7), outcome="complete", usage="reported", response_code="200")


async def test_counts_are_there_before_the_client_has_the_last_byte(upstream: Upstream) -> None:
    """A client that counts bytes may leave when it has them all: Envoy's news of the end comes after that."""
    client_is_gone = asyncio.Event()
    ends = []
    observer = Observer(Settings(), Metrics(), formats.find)

    async def process(_: object, context: Context) -> None:
        stream = Stream(observer, {})
        while (data := await context.read()) is not grpc.aio.EOF:
            reply = stream.receive(data)
            message = ProcessingRequest.FromString(data)
            if message.HasField("response_body") and not message.response_body.body:
                ends.append(message.response_body.end_of_stream)
                await client_is_gone.wait()
            assert reply is not None
            await context.write(reply)

    steps = Steps()
    upstream.begin(steps.script)
    headers, _, body = ANSWER.partition(b"\r\n\r\n")
    steps.send(headers + b"\r\n\r\n")
    async with processing(process) as address, proxy(upstream.address, address) as running:
        async with connected(running.addresses["outbound"]) as client:
            await client.send(asked("counting", "/v1/chat/completions"))
            response = client.response()
            await response.head()
            # In more than one read, or the end would come with the last byte.
            half = len(body) // 2
            steps.send(body[:half])
            await response.body(body[:half])
            steps.send(body[half:])
            await response.all()
            # With a stream that Envoy resets, grpcio lets go of messages that it has not handed out.
            await until(lambda: bool(ends))
        line = await logged(running, "/v1/chat/completions")
        client_is_gone.set()
    steps.done()
    assert ends == [True]
    assert facts(line) == ["counting", 11, 7, "reported"]


async def test_trailers_end_an_exchange(upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """Behind trailers a body has no other end: such an exchange is complete."""
    path = "/trailers/v1/chat/completions"
    body = ANSWER.partition(b"\r\n\r\n")[2]
    upstream.begin(answer(head("HTTP/1.1 200 OK", *JSON, CHUNKED), chunked(body, trailers=b"x-cost: 1\r\n")))
    message = await ask(proxied.addresses["outbound"], asked("trailers", path))
    assert message.trailers == [("x-cost", "1")]
    assert facts(await logged(proxied, path)) == ["trailers", 11, 7, "reported"]
    await check(server, proxied, "trailers", (11, 7), outcome="complete", usage="reported", response_code="200")


async def test_what_is_not_reported_is_not_zero(upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """Without usage the counts are null, and no series of tokens begins anywhere."""
    path = "/silent/v1/chat/completions"
    upstream.begin(answer(NO_USAGE))
    await ask(proxied.addresses["outbound"], asked("silent", path))
    assert facts(await logged(proxied, path)) == ["silent", None, None, "missing"]
    await check(server, proxied, "silent", None, outcome="complete", usage="missing", response_code="200")


async def test_an_error_has_its_model_and_code(upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """A call that was refused is an error of its model, without tokens."""
    path = "/refused/v1/chat/completions"
    upstream.begin(answer(whole(FAILED, status="429 Too Many Requests")))
    await ask(proxied.addresses["outbound"], asked("refused", path))
    assert facts(await logged(proxied, path)) == ["refused", None, None, "missing"]
    await check(server, proxied, "refused", None, outcome="error", usage="missing", response_code="429")


async def test_an_upstream_that_breaks_off(upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """What was counted before the upstream reset the connection stays, as an aborted exchange."""
    model = "broken-off"
    received = asyncio.Event()
    event = running_counts(model, 2)

    async def script(call: Call) -> None:
        await call.request.all()
        await call.send(head("HTTP/1.1 200 OK", *SSE, CHUNKED), chunk(event))
        await received.wait()
        call.reset()

    upstream.begin(script)
    path = f"/{model}/v1/chat/completions"
    async with connected(proxied.addresses["outbound"]) as client:
        await client.send(asked(model, path))
        response = client.response()
        await response.body(event)
        received.set()
        assert (await response.all()).end == "cut"
    assert facts(await logged(proxied, path)) == [model, 46, 2, "partial"]
    await check(server, proxied, model, (46, 2), outcome="aborted", usage="partial", response_code="200")


async def test_a_call_that_envoy_repeats_counts_once(upstream: Upstream, server: Server) -> None:
    """Retries are Envoy's affair: one request, one answer, one count."""
    attempts = 0

    async def script(call: Call) -> None:
        nonlocal attempts
        attempts += 1
        await answer(whole(FAILED, status="503 Busy") if attempts == 1 else ANSWER)(call)

    def retrying(configuration: Configuration) -> None:
        for route in routes(configuration):
            route["route"]["retry_policy"] = {"retry_on": "5xx", "num_retries": 2}

    upstream.begin(script)
    path = "/retried/v1/chat/completions"
    async with proxy(upstream.address, server.address, retrying) as running:
        assert (await ask(running.addresses["outbound"], asked("retried", path))).start == "200"
        assert facts(await logged(running, path)) == ["retried", 11, 7, "reported"]
        await check(server, running, "retried", (11, 7), outcome="complete", usage="reported", response_code="200")
    assert attempts == 2


HOSTILE = {
    "quotes": ("a\"b'c`d", "a_b_c_d"),
    "lines": ("a\nb\r\nc\u2028d\x85e\x00f", "a_b__c_d_e_f"),
    "tags": ("a|#b:c,d=e|f", "a_#b:c,d=e_f"),
    "backslashes": ('a\\b\\"c\\n', "a_b__c_n"),
    "braces": ('{}","usage":"{"x":1}', "{}_,_usage_:_{_x_:1}"),
    "commands": ("%REQ(AUTHORIZATION)%", "%REQ(AUTHORIZATION)%"),
    "dots": (".a.b..c", ".a.b..c"),
    "spaces": (" a  b ", " a  b "),
    "chinese": ("通义千问-变体", "通义千问-变体"),
    "emoji": ("🦜" * 40, "🦜" * 32),
    "no-text": ("a\ud800b", None),
    "long": ("m" * 300, "m" * 128),
    "other": ("other", "other"),
    "unknown": ("unknown", "unknown"),
    "metric": (
        '} 1\nasm_llm_proxy_prompt_tokens{llmproxy_model="x',
        "} 1_asm_llm_proxy_prompt_tokens{llmproxy_model=_x",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_name_breaks_nothing(name: str, upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """Whatever a client calls its model: the log line is JSON, both expositions parse, and the label is a safe one."""
    model, expected = HOSTILE[name]
    label = expected or "unknown"
    path = f"/hostile-{name}/v1/chat/completions"
    before = await everywhere(server, proxied, label)
    upstream.begin(answer(ANSWER))
    await ask(proxied.addresses["outbound"], asked(model, path))
    assert facts(await logged(proxied, path)) == [expected, 11, 7, "reported"]
    after = await everywhere(server, proxied, label)
    more = [(now or 0) - (then or 0) for now, then in zip(after, before, strict=True)]
    assert more == [11, 7, 11, 7]


async def everywhere(server: Server, running: Envoy, label: str) -> list[float | None]:
    """Return our counters of a model, and Envoy's."""
    return [
        *counted(await ours(server), label).values(),
        *counted(await running.prometheus(), label, "envoy_").values(),
    ]


async def test_models_beyond_the_limit_are_other(upstream: Upstream) -> None:
    """Counters of both keep the first names and call the rest `other`; the log line keeps every name."""
    models = ["a", "b", "c", "d", "a", "e"]
    upstream.begin(answer(ANSWER))
    async with extproc_server("--label-limit", "3") as server, proxy(upstream.address, server.address) as running:
        for number, model in enumerate(models):
            path = f"/{number}/v1/chat/completions"
            await ask(running.addresses["outbound"], asked(model, path))
            assert (await logged(running, path))["request_model"] == model
        text, envoys = await ours(server), await running.prometheus()
        for label, calls in {"a": 2, "b": 1, "c": 1, "other": 2}.items():
            expected = {"prompt_tokens": 11 * calls, "completion_tokens": 7 * calls}
            assert counted(text, label) == counted(envoys, label, "envoy_") == expected
            assert total(envoys, "envoy_llm_requests_total", model=label) == calls
        for beyond in "de":
            assert counted(text, beyond) == counted(envoys, beyond, "envoy_") == dict.fromkeys(expected)


async def test_spellings_of_a_host_are_one_destination(upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """Clients choose how they write the Host; neither we nor Envoy make series of that."""
    hosts = (HOST, HOST.upper(), HOST.title(), f"{HOST}:80", f"{HOST}:8080")
    for number, host in enumerate(hosts):
        upstream.begin(answer(ANSWER))
        path = f"/host-{number}/v1/chat/completions"
        await ask(proxied.addresses["outbound"], request(path, b'{"model": "hosted"}', host=host))
        assert (await logged(proxied, path))["authority_for"] == host
    tokens = 11 * len(hosts)
    text, envoys = await ours(server), await proxied.prometheus()
    labels = {"llmproxy_destination_service": HOST, "llmproxy_model": "hosted"}
    assert total(text, "asm_llm_proxy_prompt_tokens", **labels) == tokens
    assert total(envoys, "envoy_asm_llm_proxy_prompt_tokens", **labels) == tokens
    assert total(envoys, "envoy_llm_requests_total", model="hosted", destination_service=HOST) == len(hosts)


async def test_routes_elsewhere_never_reach_us(upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """Hosts whose route does not switch the filter on cost us not one message."""
    before = total(await ours(server), "extproc_messages")
    upstream.begin(answer(ANSWER))
    path = "/elsewhere/v1/chat/completions"
    call = request(path, b'{"model": "elsewhere"}', host="example.org")
    assert (await ask(proxied.addresses["outbound"], call)).start == "200"
    line = await logged(proxied, path)
    assert (line["route_name"], facts(line)) == ("other", [None] * 4)
    assert total(await ours(server), "extproc_messages") == before


async def test_what_is_no_call_costs_one_message(upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """Of other requests we see the headers and ask for no more, trailers included."""
    before = await ours(server)
    assert (await seen(proxied, upstream, "other-path-trailers", "/no-call/v1/files"))[0]["end"] == "whole"
    after = await ours(server)
    assert (total(after, "extproc_messages") or 0) - (total(before, "extproc_messages") or 0) == 1
    assert (total(after, "extproc_gaps", gap="not_llm") or 0) - (total(before, "extproc_gaps", gap="not_llm") or 0) == 1


async def test_routes_by_header_are_observed(upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """A subscriber's call takes its own route, and is counted as every other."""
    upstream.begin(answer(ANSWER))
    path = "/subscriber/v1/chat/completions"
    await ask(proxied.addresses["outbound"], asked("subscribed", path, "user-type: subscriber"))
    line = await logged(proxied, path)
    assert (line["route_name"], facts(line)) == ("subscriber", ["subscribed", 11, 7, "reported"])
    await check(server, proxied, "subscribed", (11, 7), outcome="complete", usage="reported", response_code="200")


async def test_a_route_says_which_path_it_rewrites_to(upstream: Upstream, proxied: Envoy, server: Server) -> None:
    """`POST /` is a call, because its route tells us the path that the upstream will see."""
    upstream.begin(answer(ANSWER))
    await ask(proxied.addresses["outbound"], asked("rewritten", "/"))
    assert [message.start for message in upstream.requests] == ["POST /compatible-mode/v1/chat/completions"]
    await check(server, proxied, "rewritten", (11, 7), outcome="complete", usage="reported", response_code="200")


async def test_counts_in_the_log_are_numbers(upstream: Upstream, proxied: Envoy) -> None:
    """Whole numbers of JSON, also beyond 32 bits; names are strings."""
    usage = {"prompt_tokens": 2**32 + 1, "completion_tokens": 0}
    upstream.begin(answer(whole(json.dumps({"usage": usage}).encode(), *JSON)))
    path = "/numbers/v1/chat/completions"
    await ask(proxied.addresses["outbound"], asked("numbers", path))
    line = await logged(proxied, path)
    assert facts(line) == ["numbers", 2**32 + 1, 0, "reported"]
    assert [type(value) for value in facts(line)] == [str, int, int, str]
