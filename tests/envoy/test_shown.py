"""What Envoy shows us of an exchange, by the configurations that people copy."""

from __future__ import annotations

import grpc
import pytest
import yaml

from extproc.wanted import wanted_headers
from extproc.wire.ext_proc_pb2 import ProcessingRequest
from extproc.wire.replies import WATCH
from tests.envoy.client import ask, post
from tests.envoy.grpc_service import Context, processing
from tests.envoy.message import head
from tests.envoy.setting import FILTER, FOLDER, connection_manager, proxy
from tests.envoy.upstream import Upstream, answer

ENVOYS = ("envoy.yaml", "envoy-quota.yaml", "envoy-tracing.yaml")
CALL = post(
    "/v1/chat/completions", b'{"model": "m"}', "authorization: Bearer secret", "cookie: secret", "x-api-key: secret"
)
ANSWER = head("HTTP/1.1 200 OK", "content-length: 2", "content-type: application/json", "set-cookie: secret") + b"{}"


@pytest.mark.parametrize("name", ENVOYS)
def test_configurations_name_what_is_wanted(name: str) -> None:
    """They let Envoy forward the headers that our formats read, and no others."""
    configuration = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    filters = {item["name"]: item["typed_config"] for item in connection_manager(configuration)["http_filters"]}
    patterns = filters[FILTER]["forward_rules"]["allowed_headers"]["patterns"]
    assert [pattern["exact"] for pattern in patterns] == sorted(wanted_headers())


@pytest.mark.asyncio(loop_scope="session")
async def test_no_credential_leaves_envoy(upstream: Upstream) -> None:
    """Of headers we are shown what we look at: no credential, no cookie."""
    shown: dict[str, set[str]] = {}
    said = b""

    async def process(_: object, context: Context) -> None:
        nonlocal said
        while (data := await context.read()) is not grpc.aio.EOF:
            said += data
            message = ProcessingRequest.FromString(data)
            phase = message.WhichOneof("request") or ""
            if phase.endswith("_headers"):
                shown[phase] = {header.key for header in getattr(message, phase).headers.headers}
            await context.write(WATCH[phase])

    upstream.begin(answer(ANSWER))
    async with processing(process) as address, proxy(upstream.address, address) as running:
        assert (await ask(running.addresses["outbound"], CALL)).start == "200"
    assert shown == {
        "request_headers": {":authority", ":method", ":path", "content-length", "content-type"},
        "response_headers": {":status", "content-length", "content-type"},
    }
    assert b"secret" not in said
