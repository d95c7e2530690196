from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import extproc.wire

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """protos/ext_proc.proto, compiled as `make wire` does it."""
    out = tmp_path_factory.mktemp("wire")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", f"--python_out={out}"]
    subprocess.run([*command, f"--pyi_out={out}", "ext_proc.proto"], check=True)
    return out


@pytest.mark.parametrize("name", ["ext_proc_pb2.py", "ext_proc_pb2.pyi"])
def test_generated_code_is_that_of_the_proto_file(compiled: Path, name: str) -> None:
    """Nobody edits the generated code, and nobody forgets to run `make wire`."""
    (folder,) = extproc.wire.__path__
    assert Path(folder, name).read_text() == (compiled / name).read_text()
