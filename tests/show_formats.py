"""`python -m tests.show_formats`: the table of the formats, for docs/formats.md (`make docs`)."""

from __future__ import annotations

from collections.abc import Iterable

from extproc.core.format import Format, Sum
from extproc.formats import FORMATS


def table(formats: Iterable[Format]) -> str:
    """Return a Markdown table with what each format claims and where it finds its facts."""
    rows = [
        "| provider / api | claims POST to | model | input tokens | output tokens | streams |",
        "|---|---|---|---|---|---|",
    ]
    for each in formats:
        models = dict.fromkeys((*(("path",) if "?P<model>" in each.path else each.request_model), *each.response_model))
        cells = (
            f"`{each.provider}` / `{each.api}`",
            _code(each.path) + (f" on {_code(each.host)}" if each.host != ".*" else ""),
            ", ".join(map(_code, models)) or "-",
            _sum(each.usage.get("input_tokens", ())),
            _sum(each.usage.get("output_tokens", ())),
            "yes" if each.content else "no",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _sum(terms: Sum) -> str:
    return " + ".join(" or ".join(map(_code, places)) for places in terms) or "-"


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`"


if __name__ == "__main__":
    print(table(FORMATS), end="")  # noqa: T201 - a script
