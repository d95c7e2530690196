"""The fuzzer finds nothing, in so many runs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TRANSCRIPTS = HERE.parent / "transcripts"
RUNS = 20_000


@pytest.mark.timeout(600)
@pytest.mark.skipif(
    find_spec("atheris") is None and "CI" not in os.environ, reason="needs Atheris: Linux, Python up to 3.13"
)
def test_nothing_is_found(tmp_path: Path) -> None:
    """From the vendors' bodies on, no input makes the core raise or contradict itself."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, file in enumerate(sorted(TRANSCRIPTS.glob("*/*/response.http"))):
        (corpus / str(number)).write_bytes(file.read_bytes().partition(b"\n\n")[2])
    command = [sys.executable, str(HERE / "core.py"), f"-runs={RUNS}", "-seed=1", "-max_len=8192", str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS} runs" in done.stderr
