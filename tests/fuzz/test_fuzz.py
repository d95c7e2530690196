"""The fuzzer finds nothing, in so many runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

HERE = Path(__file__).parent
TRANSCRIPTS = HERE.parent / "transcripts"
RUNS = 20_000
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]


def _core(corpus: Path) -> None:
    """Begin with the vendors' bodies."""
    for number, file in enumerate(sorted(TRANSCRIPTS.glob("*/*/response.http"))):
        (corpus / str(number)).write_bytes(file.read_bytes().partition(b"\n\n")[2])


def _http2(corpus: Path) -> None:
    """Begin with calls that go well."""
    headers = Encoder().encode([(":method", "POST"), (":scheme", "http"), (":path", "/s/M"), *GRPC])
    start = HeadersFrame(1, headers, flags=["END_HEADERS"]).serialize()
    message = b"\0\0\0\0\5hello"
    calls = (
        start + DataFrame(1, message * 2).serialize() + DataFrame(1, b"", flags=["END_STREAM"]).serialize(),
        start + DataFrame(1, message[:7], flags=["PADDED"], pad_length=3).serialize() + RstStreamFrame(1).serialize(),
        SettingsFrame(0, settings={4: 3}).serialize() + start + DataFrame(1, message).serialize(),
        PingFrame(0, b"12345678").serialize() + start + WindowUpdateFrame(1, window_increment=9).serialize(),
    )
    for number, call in enumerate(calls):
        (corpus / str(number)).write_bytes(call + b"\xff" * 5)  # what chooses comes last


@pytest.mark.timeout(600)
@pytest.mark.skipif(
    find_spec("atheris") is None and "CI" not in os.environ, reason="needs Atheris: Linux, Python up to 3.13"
)
@pytest.mark.parametrize("begin", [_core, _http2], ids=["core", "http2"])
def test_nothing_is_found(begin: Callable[[Path], None], tmp_path: Path) -> None:
    """From what is right on, no input makes the core or the fast transport raise or contradict itself."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    begin(corpus)
    program = str(HERE / f"{begin.__name__[1:]}.py")
    command = [sys.executable, program, f"-runs={RUNS}", "-seed=1", "-max_len=8192", str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS} runs" in done.stderr
