"""What one process adds and counts, others see: one file, opened twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from extproc.rows_file import RowsFile

# Enough for several chunks.
MANY = [(f"name_{number % 3}", f'label="{"é" * (number % 70)}{number}"', 1 + number % 17) for number in range(2000)]

Rows = list[tuple[str, str, list[float]]]


def news(file: RowsFile) -> Rows:
    """Return what is new."""
    return [(name, labels, list(row)) for name, labels, row in file.news()]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return where a file can be."""
    return str(tmp_path / "0")


def test_nothing(path: str) -> None:
    """A new file has no rows."""
    assert news(RowsFile(path)) == []


def test_rows_are_seen_once_and_stay(path: str) -> None:
    """A row is new once, as soon as it is there; its values are seen ever after."""
    writer, reader = RowsFile(path), RowsFile(path)
    first = writer.add("a", 'x="1"', 2)
    [(name, labels, row)] = reader.news()
    assert (name, labels, row.tolist()) == ("a", 'x="1"', [0, 0])
    first[1] += 2.5
    assert row.tolist() == [0, 2.5]
    writer.add("b", "", 1)
    assert news(reader) == [("b", "", [0])]
    assert news(reader) == []


@pytest.mark.parametrize("every", [1, 7, 500, 2000])
def test_many_rows(path: str, every: int) -> None:
    """However many rows there are and whenever others look, they see each of them once, and the values are its own."""
    writer, reader = RowsFile(path), RowsFile(path)
    found: Rows = []
    for number, (name, labels, size) in enumerate(MANY):
        row = writer.add(name, labels, size)
        row[0] += number
        row[-1] += number
        if number % every == 0:
            found += news(reader)
    found += news(reader)
    assert [(name, labels, len(row)) for name, labels, row in found] == MANY
    for number, (_, _, values) in enumerate(news(RowsFile(path))):
        assert sum(values) == 2 * number


def test_successor_goes_on(path: str) -> None:
    """A process that opens the file again has all rows with their values, and adds others."""
    for start in range(0, len(MANY), 300):
        file = RowsFile(path)
        assert [name for name, *_ in news(file)] == [name for name, *_ in MANY[:start]]
        for added in MANY[start : start + 300]:
            file.add(*added)[0] += 1
    found = news(RowsFile(path))
    assert [(name, labels, len(row)) for name, labels, row in found] == MANY
    assert {row[0] for *_, row in found} == {1}


FILLING = """
import itertools, resource, sys
from extproc.rows_file import RowsFile
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
file, rows = RowsFile(sys.argv[1]), []
try:
    for number in itertools.count():
        rows.append(file.add("a", str(number), 3))
except (OSError, ValueError):
    for row in rows:
        row[2] += 1
    print(len(rows))
"""


def test_no_room(path: str) -> None:
    """Where a file cannot grow, adding a row is an error; what is there is counted on."""
    done = subprocess.run([sys.executable, "-c", FILLING, path], capture_output=True, text=True, check=True)
    found = news(RowsFile(path))
    assert len(found) == int(done.stdout) > 1000
    assert {tuple(row) for *_, row in found} == {(0, 0, 1)}


def test_room_is_taken_at_once(path: str) -> None:
    """A file has the room for its rows before they are written: a full disk is not found by writing into memory."""
    RowsFile(path).add("a", "", 1)
    found = Path(path).stat()
    assert 512 * found.st_blocks >= found.st_size > 0


ADDING = """
import itertools, sys
from extproc.rows_file import RowsFile
file = RowsFile(sys.argv[1])
for number in itertools.count():
    file.add("a", str(number), 3)[2] += 1
    if number == 5000:
        print("going on", flush=True)
"""


def test_killed_in_the_middle(path: str) -> None:
    """When a process is killed while it adds rows, all that it had are there, and its successor can go on."""
    with subprocess.Popen([sys.executable, "-c", ADDING, path], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.kill()
    file = RowsFile(path)
    found = news(file)
    assert len(found) > 5000
    assert [labels for _, labels, _ in found] == [str(number) for number in range(len(found))]
    assert all(row == [0, 0, 1] for *_, row in found[:-1])
    file.add("a", "new", 1)
    assert news(RowsFile(path))[-1] == ("a", "new", [0])


@pytest.mark.parametrize("words", range(1, 40))
def test_killed_before_the_word(path: str, words: int) -> None:
    """What a process leaves of a row when it is killed is in nothing that its successor adds."""
    file = RowsFile(path)
    file.add("a", "1", 1)[0] += 1
    left = "x" * (8 * words)
    file.add("b", left, 0)
    content = Path(path).read_bytes()
    key = content.index(f"b {left}".encode())
    Path(path).write_bytes(content[: key - 8] + bytes(8) + content[key:])  # without its word
    successor = RowsFile(path)
    assert news(successor) == [("a", "1", [1])]
    for labels in "234":
        successor.add("a", labels, 2)[1] += 1
    assert news(RowsFile(path)) == [("a", "1", [1]), *(("a", labels, [0, 1]) for labels in "234")]
