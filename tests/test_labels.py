"""Label values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.labels import MAX_BYTES, OTHER, UNKNOWN, BoundedLabel, clean, host

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini-2024-07-18"),
        ("meta-llama/Meta-Llama-3.1-70B", "meta-llama/Meta-Llama-3.1-70B"),
        ("arn:aws:bedrock:eu-1:1:x/y@2", "arn:aws:bedrock:eu-1:1:x/y@2"),
        ("\u901a\u4e49", "\u901a\u4e49"),
        ("a\nb\rc\td\x00e\x7ff\x85g\u2028h", "a_b_c_d_e_f_g_h"),
        ("a\"b'c`d\\e|f", "a_b_c_d_e_f"),
        ("\ud83d", "_"),
        ("x" * 128, "x" * 128),
        ("x" * 129, "x" * 128),
        ("x" * 127 + "\u00e9", "x" * 127),
        ("\U0001f600" * 50, "\U0001f600" * 32),
        ("", ""),
    ],
)
def test_clean(value: str, expected: str) -> None:
    """Names stay as they are, unsafe characters become `_`, and what is too long ends at a character."""
    assert clean(value) == expected


@given(ANY_TEXT)
def test_clean_any(value: str) -> None:
    """No value breaks a log line, a stats tag or the exposition, or is cleaned to nothing."""
    label = clean(value)
    assert len(label.encode()) <= MAX_BYTES
    assert not set(label) & set("\"'`\\|\n\r\t\0\x7f\x85\u2028\u2029")
    assert len(label.splitlines()) <= 1
    assert json.dumps(label, ensure_ascii=False) == f'"{label}"'
    assert bool(label) == bool(value)
    assert clean(label) == label


def bounded(limit: int, *pinned: str) -> tuple[BoundedLabel, list[str]]:
    """Make a label, and a list that names it at each overflow."""
    overflows: list[str] = []
    return BoundedLabel("model", limit, pinned, overflows.append), overflows


def test_first_values_are_kept() -> None:
    """The first distinct values are kept, also when they come again; the rest are `other`, each time counted."""
    label, overflows = bounded(2)
    assert [label(value) for value in ("a", "b", "a", "c", "b", "d", "c")] == ["a", "b", "a", OTHER, "b", OTHER, OTHER]
    assert overflows == ["model"] * 3


def test_pinned_values_are_kept() -> None:
    """Pinned values take no room and are always kept, in whatever spelling is cleaned to them."""
    label, overflows = bounded(1, "gpt", "a|b")
    assert [label(value) for value in ("x", "gpt", "y", "a|b", "a_b")] == ["x", "gpt", OTHER, "a_b", "a_b"]
    assert overflows == ["model"]


@pytest.mark.parametrize("value", [None, ""])
def test_unknown(value: str | None) -> None:
    """What nobody named is `unknown` and takes no room."""
    label, overflows = bounded(0)
    assert label(value) == label(UNKNOWN) == UNKNOWN
    assert overflows == []


def test_spellings_take_no_room() -> None:
    """Of spellings that are cleaned to one label there can be any number."""
    label, overflows = bounded(2)
    assert {label(f"a{character}b") for character in "\n\r\t\"'|\\"} == {"a_b"}
    assert {label("x" * 128 + str(number)) for number in range(1000)} == {"x" * 128}
    assert overflows == []


@given(values=st.lists(ANY_TEXT | st.sampled_from(["a", "b", "p"]), max_size=30), limit=st.integers(0, 5))
def test_bounded(values: list[str], limit: int) -> None:
    """There are never more labels than the limit and the pinned ones, `unknown` and `other`; and none changes."""
    label, _ = bounded(limit, "p")
    first = [label(value) for value in values]
    assert len(set(first) - {"p", UNKNOWN, OTHER}) <= limit
    assert [label(value) for value in values] == first


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("api.openai.com", "api.openai.com"),
        ("api.openai.com:443", "api.openai.com"),
        ("API.OpenAI.com:443", "api.openai.com"),
        ("api.openai.com:", "api.openai.com"),
        ("10.0.0.1:8080", "10.0.0.1"),
        ("[::1]", "[::1]"),
        ("[::1]:8080", "[::1]"),
        ("[2001:db8::1]:443", "[2001:db8::1]"),
        ("user:secret@api.openai.com:443", "api.openai.com"),
        ("user:12345@api.openai.com", "api.openai.com"),
        ("localhost", "localhost"),
        ("", ""),
        (":443", ""),
    ],
)
def test_host(authority: str, expected: str) -> None:
    """A host has no port, no case and nothing of whoever asks."""
    assert host(authority) == expected
