"""Ways to read a model and token counts out of JSON, side by side: `python bench/json_decoding.py`.

Needs orjson beside what the project needs. Bodies: a vendor's own from tests/transcripts, and three made larger in the
ways that real ones are. Each row is the best of several runs, as a ratio to what the project does.
"""

from __future__ import annotations

import json
import random
import timeit
from collections.abc import Callable
from pathlib import Path

import msgspec
import orjson

from extproc.core.document import Reader
from extproc.core.skim import Skimmer

WANTED = ("model", "usage")
TRANSCRIPTS = Path(__file__).parents[1] / "tests" / "transcripts"


class Usage(msgspec.Struct):
    """OpenAI's counts, typed."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class Typed(msgspec.Struct):
    """OpenAI's response, typed."""

    model: str | None = None
    usage: Usage | None = None


def bodies() -> dict[str, bytes]:
    """Return the bodies to read, by name."""
    whole = (TRANSCRIPTS / "openai_chat_completions" / "whole" / "response.http").read_bytes().partition(b"\n\n")[2]
    random.seed(1)
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    vector = [random.random() for _ in range(1536)]  # noqa: S311 - no secrets
    picture = "iVBORw0KGgo" * 90_000
    return {
        f"answer, {len(whole)} bytes": whole,
        "prompt of 100 KB": dumps({"model": "m", "messages": [{"role": "user", "content": "word é\n" * 60}] * 250}),
        "vectors, 1 MB": dumps({"data": [{"embedding": vector}] * 32, "model": "m", "usage": usage}),
        "picture, 1 MB": dumps({"messages": [{"content": [{"image_url": picture}]}], "model": "m"}),
    }


def dumps(value: object) -> bytes:
    """Return `value` as servers write it."""
    return json.dumps(value, ensure_ascii=False).encode()


def skim(body: bytes) -> object:
    """Read with constant memory, as bodies over the limit are read."""
    skimmer = Skimmer(WANTED)
    skimmer.feed(body)
    return Reader(WANTED).read(skimmer.document())


def best(read: Callable[[bytes], object], body: bytes) -> float:
    """Return the seconds that one reading takes at best."""
    timer = timeit.Timer(lambda: read(body))
    number, _ = timer.autorange()
    return min(timer.repeat(5, max(1, number // 5))) / max(1, number // 5)


def main() -> None:
    """Print the table."""
    ways: dict[str, Callable[[bytes], object]] = {
        "wanted places (ours)": Reader(WANTED).read,
        "skimmed (ours, over the limit)": skim,
        "msgspec, typed": msgspec.json.Decoder(Typed).decode,
        "msgspec, all": msgspec.json.Decoder().decode,
        "orjson": orjson.loads,
        "json": json.loads,
    }
    print("| |", " | ".join(ways), "|")
    print("|---|" + "---|" * len(ways))
    for name, body in bodies().items():
        times = [best(read, body) for read in ways.values()]
        print(f"| {name} |", " | ".join(f"{time / times[0]:.2g}" for time in times), "|")


if __name__ == "__main__":
    main()
