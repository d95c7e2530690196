from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import extproc.serve
from extproc import __version__
from extproc.cli import main
from extproc.demo import run as demo
from extproc.settings import NAMES, Settings
from tests.test_settings import NEEDED, VALUES

DEFAULT = Settings()


def option(name: str) -> str:
    """Return the option of a setting."""
    return f"--{name.replace('_', '-')}"


def invoke(arguments: Sequence[str], environment: dict[str, str] | None = None) -> Result:
    """Run a command in this process; a failure has to be a message, and no traceback."""
    result = CliRunner().invoke(main, list(arguments), env=environment, prog_name="extproc")
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Serve nothing; note with which settings."""
    calls: list[Settings] = []
    monkeypatch.setattr(extproc.serve, "serve", calls.append)
    return calls


def test_nothing_given(served: list[Settings]) -> None:
    """`extproc serve` alone serves with the defaults."""
    assert invoke(["serve"]).exit_code == 0
    assert served == [DEFAULT]


@pytest.mark.parametrize("name", NAMES)
def test_every_option(served: list[Settings], name: str) -> None:
    """Every setting is an option."""
    value, text = VALUES[name]
    needed = [word for other, text in NEEDED.get(name, {}).items() for word in (option(other), text)]
    assert invoke(["serve", option(name), text, *needed]).exit_code == 0
    assert [getattr(settings, name) for settings in served] == [value]


def test_sources(served: list[Settings], tmp_path: Path) -> None:
    """Options, the environment and the file come together, in this order of precedence."""
    file = tmp_path / "extproc.yaml"
    file.write_text("namespace: file\nlog_level: error\nlabel_limit: 3\n")
    environment = {"EXTPROC_NAMESPACE": "environment", "EXTPROC_LOG_LEVEL": "info"}
    assert invoke(["serve", "--config", str(file), "--namespace", "option"], environment).exit_code == 0
    assert [(found.namespace, found.log_level, found.label_limit) for found in served] == [("option", "info", 3)]


def test_file_from_the_environment(served: list[Settings], tmp_path: Path) -> None:
    """The file, too, can be named by a variable; an empty one names none."""
    file = tmp_path / "extproc.yaml"
    file.write_text("namespace: file\n")
    for config in (str(file), ""):
        assert invoke(["serve"], {"EXTPROC_CONFIG": config}).exit_code == 0
    assert [settings.namespace for settings in served] == ["file", DEFAULT.namespace]


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["serve", "--listn", "h:1"], {}, ["No such option '--listn'", "Known: --config, --listen, --metrics, "]),
        (["serve", "h:1"], {}, ["unexpected extra argument"]),
        (["serve", "--listen"], {}, ["--listen"]),
        (["serve", "--listen", "h"], {}, ["'--listen'", "'h' is not an address; allowed is HOST:PORT or unix:PATH"]),
        (["serve", "--log-level", "loud"], {}, ["'--log-level'", "is not one of debug, info, warning, error"]),
        (["serve", "--label-limit", "many"], {}, ["'--label-limit'", "'many' is not a whole number"]),
        (["serve", "--drain-seconds", "-1"], {}, ["'--drain-seconds'", "allowed is a number from 0 to 3600"]),
        (["serve", "--config", "{folder}/missing.yaml"], {}, ["'--config'", "missing.yaml' does not exist"]),
        (["serve", "--config", "{folder}"], {}, ["'--config'", "is a directory"]),
        (["serve", "--config", "{folder}/bad.yaml"], {}, ["bad.yaml, line 2: listn is not known", "listen, metrics"]),
        (["serve"], {"EXTPROC_LISTN": "h:1"}, ["EXTPROC_LISTN is not known", "EXTPROC_LISTEN, EXTPROC_METRICS"]),
        (["serve"], {"EXTPROC_LABEL_LIMIT": "x"}, ["environment variable EXTPROC_LABEL_LIMIT", "not a whole number"]),
        (["serve"], {"EXTPROC_CONFIG": "{folder}/missing.yaml"}, ["does not exist"]),
        (["serve", "--workers", "2", "--transport", "grpcio"], {}, ["workers: 2 is out of range", "grpcio is 1"]),
        (["serve", "--tls-key", "k"], {}, ["tls_key is set without tls_certificate; set both or none"]),
        (["health", "--tls-key", "k"], {}, ["tls_key is set without tls_certificate; set both or none"]),
        (["srve"], {}, ["No such command 'srve'"]),
        (["demo", "--kep"], {}, ["No such option '--kep'", "Known: --keep."]),
    ],
)
def test_mistakes(
    served: list[Settings], tmp_path: Path, arguments: list[str], environment: dict[str, str], said: list[str]
) -> None:
    """A mistake ends the command with a message that names it and what would be right."""
    (tmp_path / "bad.yaml").write_text("# settings\nlistn: h:1\n")
    result = invoke(
        [argument.format(folder=tmp_path) for argument in arguments],
        {name: value.format(folder=tmp_path) for name, value in environment.items()},
    )
    assert result.exit_code != 0
    assert served == []
    assert result.stdout == ""
    for text in said:
        assert text in result.stderr


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag: str) -> None:
    """The help of `serve` has every option with its default, and says how else to set it."""
    result = invoke(["serve", flag])
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    for name in NAMES:
        assert f"{option(name)} " in words
    assert "--config" in words
    for default in ("127.0.0.1:50051", "127.0.0.1:9464", "asm.llmproxy", "warning", "30.0", "1000"):
        assert f"Default: {default}." in words
    assert "EXTPROC_LISTEN" in words


def test_commands() -> None:
    """The help lists the commands."""
    result = invoke(["--help"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.partition("Commands:\n")[2].splitlines()] == sorted(main.commands)
    assert {"serve", "demo"} <= main.commands.keys()


def test_version() -> None:
    """The version is that of the package."""
    assert invoke(["--version"]).stdout == f"extproc, version {__version__}\n"
    assert __version__ == version("extproc")


def test_server_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the server cannot start is a message."""

    def fail(_settings: Settings) -> None:
        raise extproc.serve.ServeError("cannot listen on h:1: taken")

    monkeypatch.setattr(extproc.serve, "serve", fail)
    result = invoke(["serve"])
    assert (result.exit_code, result.stderr) == (1, "Error: cannot listen on h:1: taken\n")


@pytest.mark.parametrize(("arguments", "keep"), [([], False), (["--keep"], True)])
def test_demo(monkeypatch: pytest.MonkeyPatch, arguments: list[str], *, keep: bool) -> None:
    """`extproc demo` runs the demo; what it finds wrong is a message."""

    def run(**given: bool) -> None:
        assert given == {"keep": keep}
        raise demo.DemoError("the counters differ")

    monkeypatch.setattr(demo, "run", run)
    result = invoke(["demo", *arguments])
    assert (result.exit_code, result.stderr) == (1, "Error: the counters differ\n")


def test_demo_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the demo's packages are not installed, it says which are needed."""
    monkeypatch.setitem(sys.modules, "extproc.demo.run", None)
    result = invoke(["demo"])
    assert result.exit_code == 1
    assert "pip install '.[demo]'" in result.stderr


def test_installed_command() -> None:
    """`extproc` and `python -m extproc` are the same command."""
    script = Path(sys.executable).with_name("extproc")
    for command in ([str(script)], [sys.executable, "-m", "extproc"]):
        done = subprocess.run(
            [*command, "serve", "--label-limit", "x"], capture_output=True, text=True, env=os.environ, check=False
        )
        assert done.returncode == 2
        assert done.stderr.endswith(
            "Error: Invalid value for '--label-limit': label_limit: 'x' is not a whole number\n"
        )
