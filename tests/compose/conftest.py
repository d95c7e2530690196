from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.compose.stack import Stack, missing, running


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Start the stack, for all tests that run in this process."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("`make compose-test` runs this: a stack in each of several workers would be too many")
    if reason := missing():
        if os.environ.get("COMPOSE_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    with running() as found:
        yield found
