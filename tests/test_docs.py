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
