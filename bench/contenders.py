"""Who is measured: Envoy alone, and Envoy with one of several servers."""

from __future__ import annotations

import sys
from typing import NamedTuple


class Contender(NamedTuple):
    """A server that Envoy consults, or none."""

    name: str
    text: str
    arguments: tuple[str, ...] = ()
    """Of Python. The server writes `ext_proc on HOST:PORT` to stderr when it is ready."""
    counts: bool = True
    """Whether it tells Envoy the tokens."""

    @property
    def command(self) -> tuple[str, ...]:
        """The command that starts the server; empty if there is none."""
        return self.arguments and (sys.executable, *self.arguments)


def _extproc(*options: str) -> tuple[str, ...]:
    return ("-m", "extproc", "serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", *options)


ALONE = "alone"

CONTENDERS = (
    Contender(ALONE, "Envoy without the filter", counts=False),
    Contender("noop-fast", "empty answers, on extproc's fast transport", ("-m", "bench.noop", "fast"), counts=False),
    Contender("noop-grpcio", "empty answers, on grpcio and uvloop", ("-m", "bench.noop", "grpcio"), counts=False),
    Contender("fast", "extproc serve --transport fast", _extproc("--transport", "fast")),
    Contender("grpcio", "extproc serve --transport grpcio", _extproc("--transport", "grpcio")),
    Contender("straightforward", "the same job by envoy-data-plane, grpcio and json", ("-m", "bench.straightforward")),
)
