"""The h2spec tool (https://github.com/summerwind/h2spec), built once and kept."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_VERSION = "v2.2.1+incompatible"
_FOLDER = Path(sys.prefix, "h2spec")


def h2spec() -> str:
    """Return the path of the tool; skip the test if it cannot be built, for which Go and its modules are needed."""
    program = _FOLDER / "h2spec"
    _FOLDER.mkdir(exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists() and (reason := _built()):
            pytest.skip(reason)
    return str(program)


def _built() -> str | None:
    """Build the tool; return why that did not work."""
    go = shutil.which("go")
    if go is None:
        return "h2spec is written in Go, and there is no go command here"
    done = subprocess.run(
        [go, "install", f"github.com/summerwind/h2spec/cmd/h2spec@{_VERSION}"],
        env={**os.environ, "GOBIN": str(_FOLDER), "GOFLAGS": "-modcacherw"},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"h2spec cannot be built: {done.stderr[-1000:]}" if done.returncode else None
