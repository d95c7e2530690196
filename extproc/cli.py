"""The commands."""

from __future__ import annotations

import os
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


def _default(name: str) -> str:
    default = DEFAULTS[name]
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _settings_options(command: click.Command) -> click.Command:
    for name in NAMES:
        default = _default(name)
        shown = f" Default: {default}." if default else " Separated by commas."
        option = click.Option([f"--{name.replace('_', '-')}"], type=_Setting(), help=TEXTS[name] + shown)
        command.params.append(option)
    return command


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

    given = {name: value for name, value in options.items() if value is not None}
    try:
        run(load(given, os.environ, config))
    except (SettingsError, ServeError) as error:
        raise click.ClickException(str(error)) from None


_settings_options(serve)


@main.command()
@_config_option
@click.option("--listen", type=_Setting(), help="Where it listens, if not where the settings of this environment say.")
@click.option("--timeout", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds to wait for it.")
def health(config: Path | None, listen: str | None, timeout: float) -> None:
    """Ask a server for its gRPC health; succeed if it serves."""
    from extproc.health import HealthError, check  # noqa: PLC0415 - `--help` need not load gRPC

    try:
        check(load({"listen": listen} if listen else {}, os.environ, config).listen, timeout)
    except (SettingsError, HealthError) as error:
        raise click.ClickException(str(error)) from None


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
