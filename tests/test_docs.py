"""What the documentation shows is what there is to see."""

from __future__ import annotations

import re

import pytest

from tests.show import ROOT, SHOWN, output, shown


def without_durations(text: str) -> str:
    """Leave out what differs from run to run."""
    return re.sub(r'"duration": \d+', '"duration": _', text)


@pytest.mark.parametrize("document", SHOWN)
def test_what_is_shown(document: str) -> None:
    """What a document shows of the program is what it prints, but for durations (`make docs` mends it)."""
    assert without_durations(shown(document)) == without_durations(output(document))


DOCUMENTS = ["README.md", "deploy/README.md", "docs/operations.md"]


@pytest.mark.parametrize("file", [*DOCUMENTS, "docs/decisions/0004-counting.md"])
def test_links_lead_somewhere(file: str) -> None:
    """Links within the repository lead to files that exist."""
    targets = re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", (ROOT / file).read_text())
    assert targets
    assert [target for target in targets if not (ROOT / file).parent.joinpath(target).exists()] == []


def test_figures_of_the_bench() -> None:
    """The figures in the README are those of the result that it links to."""
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("## What it costs")[2].partition("\n## ")[0]
    link = re.search(r"\]\((bench/results/[^)]+)\)", section)
    assert link
    small = (ROOT / link[1]).read_text().partition("\n## small:")[2].partition("\n## ")[0]
    measured = {row[0]: row[1:3] for row in _rows(small)}
    shown = {row[0]: row[1:] for row in _rows(section)[1:]}
    assert len(shown) == 5
    assert all(measured[name] == figures for name, figures in shown.items())


def _rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|--")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
