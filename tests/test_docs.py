"""What the documentation shows is what there is to see."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from extproc.formats import FORMATS

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> str:
    """Return what a command of ours prints."""
    command = [sys.executable, "-m", "extproc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env={"COLUMNS": "80"})
    return done.stdout


def shown(file: str) -> str:
    """Return the block of output that a document shows."""
    found = re.search(r"<!-- the output of .*?-->\n```\n(.*?)```\n", (ROOT / file).read_text(), re.DOTALL)
    assert found, f"{file} shows no output"
    return found[1]


def without_durations(text: str) -> str:
    """Leave out what differs from run to run."""
    return re.sub(r'"duration": \d+', '"duration": _', text)


def test_readme_shows_the_demo() -> None:
    """README shows what `make demo` prints, but for durations."""
    assert without_durations(run("demo")) == without_durations(shown("README.md"))


def test_operations_shows_the_options() -> None:
    """docs/operations.md shows what `extproc serve --help` prints."""
    assert run("serve", "--help").replace("python -m extproc", "extproc") == shown("docs/operations.md")


def test_formats_are_listed() -> None:
    """docs/formats.md has a row for each format."""
    text = (ROOT / "docs/formats.md").read_text()
    assert [f for f in FORMATS if f"| `{f.provider}` / `{f.api}` |" not in text] == []


DOCUMENTS = ["README.md", "deploy/README.md", "docs/operations.md"]


@pytest.mark.parametrize("file", [*DOCUMENTS, "docs/decisions/0004-counting.md"])
def test_links_lead_somewhere(file: str) -> None:
    """Links within the repository lead to files that exist."""
    targets = re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", (ROOT / file).read_text())
    assert targets
    assert [target for target in targets if not (ROOT / file).parent.joinpath(target).exists()] == []
