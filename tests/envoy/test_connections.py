"""How Envoy connects to us: as docs/operations.md shows it, with TLS, and to several workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from extproc.demo.processes import extproc_server
from tests.certificates import NAME, authority
from tests.envoy.cases import ASKED, JSON, whole
from tests.envoy.client import ask, post
from tests.envoy.setting import Configuration, facts, ours, proxy
from tests.envoy.upstream import Upstream, answer
from tests.samples import total

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER = b'{"model": "qwen-turbo", "usage": {"prompt_tokens": 1, "completion_tokens": 2}}'
WORKERS = 3


def our_cluster(configuration: Configuration) -> dict[str, Any]:
    """Return the cluster that we are."""
    clusters = configuration["static_resources"]["clusters"]
    return next(cluster for cluster in clusters if cluster["name"] == "extproc")


@pytest.mark.parametrize("transport", ["fast", "grpcio"])
async def test_tls(upstream: Upstream, tmp_path: Path, transport: str) -> None:
    """Envoy and the server know each other by certificates of a CA."""
    ca = authority()
    for name in ("server", "client"):
        ca.issue(NAME if name == "server" else "envoy").write(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
    (tmp_path / "ca.crt").write_bytes(ca.pem)

    def with_tls(configuration: Configuration) -> None:
        our_cluster(configuration)["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": NAME,
                "auto_sni_san_validation": True,
                "common_tls_context": {
                    "tls_certificates": [
                        {
                            "certificate_chain": {"filename": f"{tmp_path}/client.crt"},
                            "private_key": {"filename": f"{tmp_path}/client.key"},
                        }
                    ],
                    "validation_context": {"trusted_ca": {"filename": f"{tmp_path}/ca.crt"}},
                },
            },
        }

    upstream.begin(answer(whole(ANSWER, *JSON)))
    identity = ("--tls-certificate", f"{tmp_path}/server.crt", "--tls-key", f"{tmp_path}/server.key")
    clients = ("--tls-client-ca", f"{tmp_path}/ca.crt")
    async with (
        extproc_server("--transport", transport, *identity, *clients) as server,
        proxy(upstream.address, server.address, with_tls) as running,
    ):
        await ask(running.addresses["outbound"], post("/compatible-mode/v1/chat/completions", ASKED))
        assert facts(await running.log_line(0))[1:] == [1, 2, "reported"]


async def test_numbered_sockets(upstream: Upstream, tmp_path: Path) -> None:
    """As endpoints of one cluster, the workers' sockets get the same share each, of one Envoy thread too."""

    def with_sockets(configuration: Configuration) -> None:
        our_cluster(configuration)["load_assignment"]["endpoints"] = [
            {
                "lb_endpoints": [
                    {"endpoint": {"address": {"pipe": {"path": f"{tmp_path}/s.{number}"}}}} for number in range(WORKERS)
                ]
            }
        ]

    upstream.begin(answer(whole(ANSWER, *JSON)))
    options = ("--workers", str(WORKERS), "--listen", f"unix:{tmp_path}/s")
    async with (
        extproc_server(*options) as server,
        proxy(upstream.address, ("127.0.0.1", 1), with_sockets) as running,
    ):
        for _ in range(2 * WORKERS):
            await ask(running.addresses["outbound"], post("/compatible-mode/v1/chat/completions", ASKED))
        assert total(await ours(server), "asm_llm_proxy_requests") == 2 * WORKERS
        async with aiohttp.ClientSession() as session, session.get(f"{running.admin_url}/clusters") as response:
            lines = [line.split("::") for line in (await response.text()).splitlines()]
    asked = {
        where: int(value)
        for name, where, key, value in filter(lambda line: len(line) == 4, lines)
        if name == "extproc" and key == "rq_total"
    }
    assert asked == {f"{tmp_path}/s.{number}": 2 for number in range(WORKERS)}
