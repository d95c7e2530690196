"""Formats that users declare in the configuration file, and hosts where anything is taken for a call."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.core.format import Format
from extproc.formats import FORMATS, finder
from extproc.settings import SettingsError, load
from tests.documents import usage_of

ACME = """\
formats:
- provider: acme
  api: talk
  operation: text_completion
  path: /v3/(?P<model>[^/]+)/talk
  host: api\\.acme\\.test
  request_model: model | deployment.name
  response_model: meta.model
  usage:
    input_tokens: usage.fresh + usage.from_cache | meta.from_cache
    output_tokens: "@x-written"
    cached_input_tokens: usage.from_cache
  content: delta.text | delta.tools[]
  running: delta
  finish: delta.reason
  done: "[END]"
  error: failure
"""


def formats(folder: Path, text: str) -> tuple[Format, ...]:
    """Return the formats that a file declares."""
    file = folder / "extproc.yaml"
    file.write_text(text)
    return load({}, {}, file).formats


def refused(folder: Path, text: str) -> str:
    """Return what is said of a file that cannot be used, without its path."""
    with pytest.raises(SettingsError) as error:
        formats(folder, text)
    return str(error.value).removeprefix(f"{folder}/")


def test_a_new_format(tmp_path: Path) -> None:
    """All that a format is can be declared."""
    assert formats(tmp_path, ACME) == (
        Format(
            provider="acme",
            api="talk",
            operation="text_completion",
            path="/v3/(?P<model>[^/]+)/talk",
            host=r"api\.acme\.test",
            request_model=("model", "deployment.name"),
            response_model=("meta.model",),
            usage={
                "input_tokens": (("usage.fresh",), ("usage.from_cache", "meta.from_cache")),
                "output_tokens": (("@x-written",),),
                "cached_input_tokens": (("usage.from_cache",),),
            },
            content=("delta.text", "delta.tools[]"),
            running="delta",
            finish=("delta.reason",),
            done=b"[END]",
            error=("failure",),
        ),
    )


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    """A format needs a name, a path and its counts."""
    text = "formats: [{provider: a, api: b, path: /c, usage: {input_tokens: n}}]"
    assert formats(tmp_path, text) == (Format("a", "b", "chat", "/c", {"input_tokens": (("n",),)}),)


def test_another_path_of_a_format(tmp_path: Path) -> None:
    """`like` takes everything else from a format that there is; what is declared comes before what is built in."""
    text = "formats: [{like: openai/embeddings, path: '/ask|/v1/chat/completions', host: llm\\.internal}]"
    find = finder(formats(tmp_path, text))
    for path, host, api in [
        ("/ask", "llm.internal", "embeddings"),
        ("/v1/chat/completions", "llm.internal", "embeddings"),
        ("/v1/chat/completions", "elsewhere", "chat_completions"),
        ("/ask", "elsewhere", None),
    ]:
        found = find("POST", path, host)
        assert (found.api if found else None) == api


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("formats: x", 1, "formats: a list is expected"),
        ("formats:\n- x", 2, "formats: each entry is a mapping"),
        ("formats:\n- like: openai/chat", 2, "like: openai/chat is no format; there are "),
        ("formats:\n- like: [a]", 2, "a text is expected"),
        ("formats:\n- provider: a\n  modle: x", 3, "modle is not known; known: like, provider, api, operation, path"),
        ("formats:\n- provider: a\n  provider: b", 3, "provider is set twice"),
        ("formats:\n- provider: a\n  path: /b", 2, "missing: api, usage, or `like` and a format to take them from"),
        ("formats:\n- path: '('", 2, "'(' is no regular expression: "),
        ("formats:\n- usage: x", 2, "usage: a mapping is expected, with input_tokens, output_tokens"),
        ("formats:\n- usage:\n    input: x", 3, "input is no count; known: input_tokens, output_tokens"),
        ("formats:\n- usage:\n    input_tokens: a..b", 3, "'a..b' is no place: names with dots"),
        ("formats:\n- usage:\n    input_tokens: a + ", 3, "'' is no place"),
        ("formats:\n- content: a b", 2, "'a b' is no place"),
        ("formats:\n- running: a | b", 2, "one place is expected"),
        ("formats:\n- done:", 2, "a text is expected"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, line: int, message: str) -> None:
    """A mistake is told with its line and what is allowed."""
    assert refused(tmp_path, text).startswith(f"extproc.yaml, line {line}: {message}")


def test_every_format_can_be_liked(tmp_path: Path) -> None:
    """`like` knows every format that is built in."""
    text = "formats:\n" + "".join(f"- like: {each.provider}/{each.api}\n" for each in FORMATS)
    assert formats(tmp_path, text) == FORMATS


SHAPES = [
    ({"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "model": "m"}, (3, 4)),
    ({"usage": {"input_tokens": 3, "output_tokens": 4}}, (3, 4)),
    ({"usage": {"inputTokens": 3, "outputTokens": 4}}, (3, 4)),
    ({"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}}, (3, 4)),
    ({"meta": {"tokens": {"input_tokens": 3.0, "output_tokens": 4.0}}}, (3, 4)),
    ({"prompt_eval_count": 3, "eval_count": 4}, (3, 4)),
    ({"message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}, (3, 1)),
    ({"answer": 42}, (None, None)),
]


@pytest.mark.parametrize(("document", "expected"), SHAPES)
def test_detected(document: dict[str, object], expected: tuple[int | None, int | None]) -> None:
    """On a host of which it is said, whatever is posted is read by a guess, which says that it is one."""
    find = finder(detect_hosts=["Models.Internal"])
    found = find("POST", "/anything", "models.internal")
    assert found is not None
    assert found.api == "detected"
    usage = usage_of(found, document)
    assert (usage.input_tokens, usage.output_tokens) == expected
    assert find("GET", "/anything", "models.internal") is None
    assert find("POST", "/anything", "elsewhere") is None
    known = find("POST", "/v1/embeddings", "models.internal")
    assert known is not None
    assert known.api == "embeddings"
