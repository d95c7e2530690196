"""What the documentation shows of the program: `python -m tests.show` brings it up to date, test_docs.py compares."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

SHOWN: dict[str, tuple[str, ...]] = {
    "README.md": ("extproc", "demo"),
    "docs/operations.md": ("extproc", "serve", "--help"),
    "docs/formats.md": ("tests.show_formats",),
}
"""By document, the module that is run and its arguments."""

_BLOCK = re.compile(r"(?<=test_docs.py compares -->\n)(?:```\n(.*?)```\n|(\|.*?\n)(?=\n|$))", re.DOTALL)


def output(document: str) -> str:
    """Return what the program prints, as the document shows it."""
    command = [sys.executable, "-m", *SHOWN[document]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env={"COLUMNS": "80"})
    text = done.stdout.replace("python -m extproc", "extproc")
    return text if text.startswith("|") else f"```\n{text}```\n"


def shown(document: str) -> str:
    """Return what the document shows."""
    found = _BLOCK.search((ROOT / document).read_text())
    return found[0] if found else ""


def main() -> None:
    """Bring all documents up to date."""
    for document in SHOWN:
        file = ROOT / document
        file.write_text(_BLOCK.sub(lambda _: output(document), file.read_text()))  # noqa: B023 - called at once


if __name__ == "__main__":
    main()
