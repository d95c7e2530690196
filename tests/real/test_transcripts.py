"""Every API's transcripts through a real Envoy: what Envoy logs are their facts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from tests.envoy.client import connected
from tests.envoy.message import head
from tests.formats.test_transcripts import FOLDERS
from tests.formats.test_transcripts import read as transcript
from tests.real.replay import Setting, read, replaying, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

_LINES = count()  # of the access log: a call writes one
_NOT_FACTS = {"model_tag", "time_to_first_token_ms", "time_per_output_token_ms"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def setting() -> AsyncIterator[Setting]:
    """Run the upstream, our server and Envoy for all of them."""
    async with running() as started:
        yield started


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
async def test_logged(folder: Path, setting: Setting) -> None:
    """A call as it was recorded, and its answer, cut as they come: all facts are in the metadata that Envoy has."""
    recorded, asked = read(folder), transcript(folder).request
    setting.upstream.begin(replaying(recorded))
    fields = {name: value for name, value in asked.headers.items() if not name.startswith(":")}
    fields["content-length"] = str(len(asked.body))
    async with connected(setting.envoy.addresses["outbound"]) as client:
        start = head(f"POST {asked.headers[':path']} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()))
        half = len(asked.body) // 2
        await client.send(start + asked.body[:half], asked.body[half:])
        answer = await client.response().all()
    assert (answer.start, bytes(answer.body)) == (recorded.status, recorded.body)
    line = await setting.envoy.log_line(next(_LINES))
    facts = {name: value for name, value in (line["metadata"] or {}).items() if name not in _NOT_FACTS}
    assert facts == {name: value for name, value in recorded.known.items() if name != "outcome"}
