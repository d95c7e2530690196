"""The commands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from extproc import __version__
from extproc.config.command import config
from extproc.settings import DEFAULTS, NAMES, TEXTS, SettingsError, load, parse


class _Setting(click.ParamType[object]):
    """A setting given as an option, checked as from anywhere else."""

    name = "value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Read the text of the option."""
        assert param is not None and param.name is not None  # noqa: S101, PT018 - click names its options
        try:
            return parse(param.name, value)
        except SettingsError as error:
            self.fail(str(error), param, ctx)


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return " Separated by commas."
    return f" Default: {default}." if default != "" else ""


def _add_settings(command: click.Command, names: Iterable[str] = NAMES) -> None:
    for name in names:
        text = TEXTS[name] + _shown(DEFAULTS[name])
        command.params.append(click.Option([f"--{name.replace('_', '-')}"], type=_Setting(), help=text))


def _given(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


class _Command(click.Command):
    """Says which options there are when it is given another."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = ", ".join(name for option in self.params for name in option.opts)
            message = f"{error.message} Known: {known}."
            raise click.NoSuchOption(error.option_name, message, error.possibilities, ctx) from None


_config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="EXTPROC_CONFIG",
    help="YAML file with settings.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="extproc")
def main() -> None:
    """Let Envoy count which workload used which large language model for how many tokens."""


main.command_class = _Command


@main.command(epilog="Every option is also an environment variable (EXTPROC_LISTEN) and a key of the file (listen).")
@_config_option
def serve(config: Path | None, **options: object) -> None:
    """Serve Envoy's ext_proc filter until SIGTERM."""
    from extproc.serve import ServeError  # noqa: PLC0415 - `--help` need not load gRPC
    from extproc.serve import serve as run  # noqa: PLC0415

    try:
        run(load(_given(options), os.environ, config))
    except (SettingsError, ServeError) as error:
        raise click.ClickException(str(error)) from None


_add_settings(serve)


@main.command(epilog="Where its settings differ from those of this environment, the options say what they are.")
@_config_option
@click.option("--timeout", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds to wait for it.")
def health(config: Path | None, timeout: float, **options: object) -> None:
    """Ask a server on this host for its gRPC health; succeed if it serves."""
    from extproc.health import HealthError, check  # noqa: PLC0415 - `--help` need not load it

    try:
        check(load(_given(options), os.environ, config), timeout)
    except (SettingsError, HealthError) as error:
        raise click.ClickException(str(error)) from None


_add_settings(health, ("listen", "workers", "tls_certificate", "tls_key", "tls_client_ca"))


@main.command()
@click.option("--keep", is_flag=True, help="Keep everything running until Ctrl-C.")
def demo(*, keep: bool) -> None:
    """Show the main job on a real Envoy: calls, access log, stats and metrics."""
    try:
        from extproc.demo.run import DemoError, run  # noqa: PLC0415 - only the demo needs its libraries
    except ImportError as error:
        raise click.ClickException(f"{error}; in the checkout: pip install '.[demo]'") from None
    try:
        run(keep=keep)
    except DemoError as error:
        raise click.ClickException(str(error)) from None


main.add_command(config)
