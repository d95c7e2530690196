"""The same exchange through Envoy with us and without us: neither end can tell the difference."""

from __future__ import annotations

import pytest

from extproc.demo.processes import Envoy
from tests.envoy.cases import CASES, seen
from tests.envoy.setting import facts, logged
from tests.envoy.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("name", CASES)
async def test_neither_end_sees_a_difference(name: str, proxied: Envoy, plain: Envoy, upstream: Upstream) -> None:
    """Request line, headers, body, trailers and framing are the same at both ends; with us the log has the facts."""
    case = CASES[name]()
    path = f"/same/{name}{case.path}"
    without = await seen(plain, upstream, name, path)
    assert await seen(proxied, upstream, name, path) == without
    assert facts(await logged(plain, path)) == [None] * 4
    assert facts(await logged(proxied, path)) == list(case.facts)
