"""HTTP/2 as h2spec sees it: RFC 9113 (as RFC 7540) and RFC 7541, rule by rule."""

from __future__ import annotations

import asyncio
import re

import pytest

from extproc.demo.processes import extproc_server
from tests.transport.h2spec import h2spec


@pytest.mark.timeout(400)
async def test_every_rule() -> None:
    """The fast transport keeps every rule that h2spec knows, the strict ones included, and serves on afterwards."""
    program = await asyncio.to_thread(h2spec)
    async with extproc_server("--transport", "fast") as server:
        host, port = server.address
        process = await asyncio.create_subprocess_exec(
            *(program, "--strict", "--host", host, "--port", str(port), "--timeout", "10"),
            stdout=asyncio.subprocess.PIPE,
        )
        output = (await process.communicate())[0].decode()
        failures = output.partition("Failures:")[2]
        assert process.returncode == 0, failures or output[-2000:]
        assert (found := re.search(r"(\d+) tests, (\d+) passed, 0 skipped, 0 failed", output))
        assert found[1] == found[2]
        assert int(found[1]) > 100
        assert len(server.process.stderr) == 1
