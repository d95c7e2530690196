from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from extproc.demo.processes import Envoy, Server, extproc_server
from tests.envoy.setting import proxy, without_us
from tests.envoy.upstream import Upstream, answer


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def listening_upstream() -> AsyncIterator[Upstream]:
    """Start the upstream of all tests."""
    async with Upstream().listening() as upstream:
        yield upstream


@pytest_asyncio.fixture(loop_scope="session")
async def upstream(listening_upstream: Upstream) -> AsyncIterator[Upstream]:
    """Lend the upstream to one test."""
    yield listening_upstream
    listening_upstream.begin(answer())
    faults, listening_upstream.faults = listening_upstream.faults, []
    assert faults == []


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[Server]:
    """Start our server."""
    async with extproc_server() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def proxied(listening_upstream: Upstream, server: Server) -> AsyncIterator[Envoy]:
    """Start Envoy with our filter, as envoy.yaml has it."""
    async with proxy(listening_upstream.address, server.address) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def plain(listening_upstream: Upstream, server: Server) -> AsyncIterator[Envoy]:
    """Start the same Envoy without our filter."""
    async with proxy(listening_upstream.address, server.address, without_us) as running:
        yield running
