"""The ways in which Envoy's messages reach a `Stream`."""

from __future__ import annotations

import asyncio
from typing import Protocol

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
"""The service that Envoy calls; its one method is `Process`."""


class Transport(Protocol):
    """Serves ext_proc and gRPC health on one address."""

    async def start(self, address: str) -> str:
        """Listen on HOST:PORT or unix:PATH and serve; return the address with the port that was chosen for 0.

        Raises:
            OSError: nobody can listen there.
        """

    async def stop(self, drain_seconds: float, hurry: asyncio.Event) -> None:
        """Take no new streams, report as not serving, let open streams finish for so long, then end them.

        `hurry` cuts it short.
        """
