"""The configurations that people copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.demo.processes import validate
from tests.envoy.setting import FOLDER

FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_envoy_takes_a_configuration(file: Path) -> None:
    """Envoy finds nothing wrong with it, and nothing to warn of."""
    assert validate(file) == (0, f"configuration '{file}' OK\n")


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [
        ("failure_mode_allow: true", "failure_mode_alow: true", "failure_mode_alow"),
        ("request_body_mode: ", "request_body_mode: SOMETIMES_", "SOMETIMES_"),
        ("route: {cluster: other}", "route: {cluster: nobody}", "nobody"),
    ],
)
def test_a_mistake_is_found(good: str, bad: str, named: str, tmp_path: Path) -> None:
    """A word that Envoy does not know, a value that it does not have, a cluster that is not there."""
    text = (FOLDER / "envoy.yaml").read_text(encoding="utf-8")
    assert good in text
    file = tmp_path / "envoy.yaml"
    file.write_text(text.replace(good, bad, 1), encoding="utf-8")
    status, said = validate(file)
    assert status != 0
    assert named in said
