"""The stack of deploy/docker-compose.yml under a name of its own and on free ports, and what it tells."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx

from extproc.demo.run import Answer, Call, make

FOLDER = Path(__file__).parents[2] / "deploy"
# Of docker-compose.yml; 0 is any free port.
PORTS = {"ENVOY_PORT": "0", "ENVOY_ADMIN_PORT": "0", "EXTPROC_METRICS_PORT": "0", "PROMETHEUS_PORT": "0"}

Found = TypeVar("Found")

_PAUSE = 0.1  # between two looks at what nothing announces


def missing() -> str | None:
    """Say why no stack can be started here, if so."""
    for command in (["docker", "compose", "version"], ["docker", "info"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"Docker is needed: {error}"
        if done.returncode:
            return f"`{' '.join(command)}` failed: {' '.join(done.stderr.split())}"
    return None


def until(found: Callable[[], Found], seconds: float = 90) -> Found:
    """Ask until the answer is something; several processes in turn have to do their part for it."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"in vain for {seconds} s"
        time.sleep(_PAUSE)
    return answer


def until_none(left: Callable[[], object], seconds: float = 90) -> None:
    """Ask until nothing is left that is missing or wrong."""
    deadline = time.monotonic() + seconds
    while found := left():
        assert time.monotonic() < deadline, f"after {seconds} s still: {found}"
        time.sleep(_PAUSE)


@dataclass(frozen=True)
class Stack:
    """The stack, running."""

    project: str

    def compose(self, *arguments: str) -> str:
        """Run a command of docker compose; return what it prints."""
        command = ["docker", "compose", "-f", str(FOLDER / "docker-compose.yml"), "-p", self.project, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **PORTS})
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, *services: str) -> None:
        """Start services and wait until they are healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "300", *services)

    def url(self, service: str, port: int) -> str:
        """Return where a port of a service can be reached; a container started again may be elsewhere."""
        return f"http://{self.compose('port', service, str(port)).strip()}"

    def get(self, service: str, port: int, path: str) -> httpx.Response:
        """Get something from a service."""
        return httpx.get(self.url(service, port) + path).raise_for_status()

    def inspect(self, service: str) -> Mapping[str, Any]:
        """Return what the engine knows of a service's container, running or not."""
        (identity,) = self.compose("ps", "--all", "--quiet", service).split()
        done = subprocess.run(["docker", "inspect", identity], capture_output=True, text=True, check=True)
        (found,) = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def access_log(self) -> list[dict[str, Any]]:
        """Return the lines of Envoy's access log."""
        # Compose sends terminals' "clear the line" before each, even where there is no terminal.
        lines = self.compose("logs", "--no-log-prefix", "--no-color", "envoy").replace("\x1b[2K", "").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def call(self, call: Call) -> tuple[Answer, dict[str, Any]]:
        """Make a call; return what its client saw, and its line in the access log."""
        before = len(self.access_log())
        answer = asyncio.run(make(call, self.url("envoy", 10000)))
        (line,) = until(lambda: self.access_log()[before:])
        return answer, line

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus."""
        reply = httpx.get(f"{self.url('prometheus', 9090)}/api/v1/query", params={"query": expression})
        assert reply.status_code == 200, f"{expression}\n{reply.text}"
        found = reply.json()["data"]["result"]
        assert isinstance(found, list)
        return found


@contextmanager
def running() -> Iterator[Stack]:
    """Build and start the stack; at the end, whatever happened, leave nothing of it."""
    stack = Stack(f"extproc-test-{uuid4().hex[:8]}")
    try:
        stack.compose("build")
        try:
            stack.start()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{stack.compose('logs')}") from None
        yield stack
    finally:
        stack.compose("down", "--volumes", "--rmi", "local", "--timeout", "5")
