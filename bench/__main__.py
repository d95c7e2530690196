"""What extproc costs Envoy, beside servers of other kinds: `make bench`."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from bench.contenders import CONTENDERS, Contender
from bench.loads import LOADS, QUICK, Load, Streams
from bench.measure import Options, Results, measure
from bench.preface import preface
from bench.probe import ProbeError
from bench.report import growth, section
from bench.tools import MissingToolError, Tools
from extproc.demo.processes import ProcessError

_RESULTS = Path(__file__).parent / "results"
_CONTENDERS = {contender.name: contender for contender in CONTENDERS}
_LOADS = {load.name: load for load in LOADS}


class _Names(click.ParamType[tuple[str, ...]]):
    """Some names, with commas between."""

    name = "names"

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Read the text of the option."""
        names = tuple(value.split(",")) if isinstance(value, str) else value
        if unknown := [name for name in names if name not in self._known]:
            self.fail(f"not known: {', '.join(unknown)}. Known: {', '.join(self._known)}.", param, ctx)
        return names


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="One round of a second, and not all loads.")
@click.option("--only", type=_Names(tuple(_LOADS)), metavar="LOAD,...", help="Loads; by default all.")
@click.option("--contenders", type=_Names(tuple(_CONTENDERS)), metavar="NAME,...", help="By default all.")
@click.option("--base", type=click.Choice(tuple(_CONTENDERS)), default="grpcio", help="Whose server CPU is 1.")
@click.option("--seconds", type=click.IntRange(1), help="Of a sample. Default: 3; 1 if quick.")
@click.option("--rounds", type=click.IntRange(1), help="Samples of each contender. Default: 5; 1 if quick.")
@click.option("--envoy-workers", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the result is written. Default: bench/results/DATE.md, if nothing is left out.",
)
def main(  # noqa: PLR0913 - one each for an option
    *,
    quick: bool,
    only: tuple[str, ...] | None,
    contenders: tuple[str, ...] | None,
    base: str,
    seconds: int | None,
    rounds: int | None,
    envoy_workers: int,
    output: Path | None,
) -> None:
    """Run it; print what is measured as soon as it is."""
    loads = [_LOADS[name] for name in only or (QUICK if quick else _LOADS)]
    chosen = [contender for contender in CONTENDERS if not contenders or contender.name in contenders]
    options = Options(seconds or (1 if quick else 3), rounds or (1 if quick else 5), envoy_workers)
    if output is None and not (quick or only or contenders):
        output = _RESULTS / f"{datetime.now(UTC):%Y-%m-%d}.md"
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    bench = _Bench(base)
    try:
        with TemporaryDirectory(prefix="bench-") as folder:
            tools = Tools(Path(folder))
            bench.say(preface(command, chosen, options))
            asyncio.run(bench.run(loads, chosen, options, tools))
    except (MissingToolError, ProbeError, ProcessError) as error:
        raise click.ClickException(str(error)) from None
    except asyncio.CancelledError:
        raise click.Abort from None
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(f"{bench.text.rstrip()}\n", encoding="utf-8")
        print(f"\nWritten to {output}.", file=sys.stderr)


class _Bench:
    """What has been said so far."""

    def __init__(self, base: str) -> None:
        self.text = ""
        self._base = base

    async def run(
        self, loads: Sequence[Load | Streams], contenders: Sequence[Contender], options: Options, tools: Tools
    ) -> None:
        """Measure; end all that was started, also on Ctrl-C and SIGTERM."""
        if task := asyncio.current_task():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        found: dict[str, Results] = {}
        for load in loads:
            print(f"... {load.name}", file=sys.stderr)
            found[load.name] = await measure(load, contenders, options, tools)
            self.say(section(found[load.name], self._base))
        if grown := growth(found, self._base):
            self.say(grown)

    def say(self, text: str) -> None:
        """Print it, and keep it for the file."""
        self.text += f"{text}\n\n"
        print(f"{text}\n", flush=True)


if __name__ == "__main__":
    main()
