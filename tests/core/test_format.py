"""What a format makes of documents."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.facts import Usage
from extproc.core.format import Format, Places, Sum
from tests.documents import read, usage_of

# Input without the cached and written tokens, as some APIs count; output that one of two places names; one part.
INPUT: Sum = (("usage.input",), ("usage.cached", "cached"), ("usage.written",))
OUTPUT: Sum = (("usage.output", "result.tokens[].output"),)
CACHED: Sum = (("usage.cached", "cached"),)
API = Format(
    provider="acme",
    api="talk",
    operation="chat",
    path=r"(?:/.*)?/talk/?",
    usage={"input_tokens": INPUT, "output_tokens": OUTPUT, "cached_input_tokens": CACHED},
    request_model=("model", "deployment.name"),
    response_model=("message.model", "model"),
    content=("choices[].text", "delta.text"),
    running="choices[]",
    finish=("choices[].end",),
    error=("error", "failure.reason"),
    failed=(("state.why", "broken"), ("state.why", False)),
)
REPORTED = Format(
    provider="acme",
    api="tell",
    operation="chat",
    path="/tell",
    usage={name: ((f"usage.{name}",),) for name in ("input_tokens", "output_tokens", "total_tokens")},
)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/talk", True),
        ("POST", "/talk/", True),
        ("POST", "/any/prefix/talk", True),
        ("POST", "/talk/more", False),
        ("POST", "/talks", False),
        ("POST", "/smalltalk", False),
        ("POST", "/TALK", False),
        ("POST", "talk", False),
        ("POST", "", False),
        ("GET", "/talk", False),
        ("post", "/talk", False),
        ("", "/talk", False),
    ],
)
def test_claims(method: str, path: str, *, expected: bool) -> None:
    """A format claims what is posted to its path, and nothing else."""
    assert API.claims(method, path) is expected


PLACED = Format(
    provider="acme",
    api="placed",
    operation="chat",
    path=r"/models/(?P<model>[^/:]+):(?:ask|(?P<stream>stream))|/models",
    host=r"(?:.*\.)?acme\.test",
    usage={"input_tokens": (("@x-input", "usage.input"),), "output_tokens": (("usage.output",),)},
    response_model=("@x-model", "model"),
    last=(("type", "stop"), ("state.done", True), ("summary", None)),
)


@pytest.mark.parametrize(
    ("host", "expected"), [("acme.test", True), ("eu.acme.test", True), ("acme.test.evil", False), ("", False)]
)
def test_host(host: str, *, expected: bool) -> None:
    """Where the path does not tell the API, the host does."""
    assert PLACED.claims("POST", "/models/m:ask", host) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/models/m-1:ask", "m-1"),
        ("/models/arn%3Aaws%2Fm:stream", "arn:aws/m"),
        ("/models/%ff:ask", "\ufffd"),
        ("/models", None),
        ("/elsewhere", None),
    ],
)
def test_model_in_path(path: str, expected: str | None) -> None:
    """A path may name the model, percent-encoded."""
    assert PLACED.model_in_path(path) == expected
    assert API.model_in_path(path) is None


def test_headers() -> None:
    """Counts and models may be in the response's headers; a body counts as a later report."""
    found = PLACED.in_headers({"x-input": "12", "x-model": "m-2", "x-other": "1"})
    assert PLACED.response_headers == {"x-input", "x-model"}
    assert (PLACED.counts(found), PLACED.responded_model(found)) == ({0: 12}, "m-2")
    assert PLACED.terms[0] == ("@x-input", "usage.input")
    assert PLACED.counts(read(PLACED, {"usage": {"input": 3}})) == {0: 3}
    assert PLACED.response.wanted == ("model", "error", "usage.input", "usage.output", "type", "state.done", "summary")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "stop"}, True),
        ({"state": {"done": True}}, True),
        ({"state": {"done": False}, "type": "text"}, False),
        ({"state": {"done": 1.5}}, False),
        ({"type": None}, False),
        ({"summary": {}}, True),
        ({"summary": None}, False),
        ({}, False),
    ],
)
def test_is_last(event: dict[str, object], *, expected: bool) -> None:
    """The event that ends a stream is known by a value, and never passed over undecoded."""
    assert PLACED.is_last(read(PLACED, event)) is expected
    for separators in ((",", ":"), (" , ", " : ")):
        assert PLACED.has_news(json.dumps(event, separators=separators).encode()) >= expected
    assert not API.is_last(read(API, event))


def test_wanted() -> None:
    """Only the places that hold facts are read, and content only of events."""
    assert set(API.request.wanted) == {"model", "deployment.name"}
    counts = {"usage.input", "usage.cached", "cached", "usage.written", "usage.output", "result.tokens[].output"}
    whole = {"message.model", "model", "error", "failure.reason", "state.why", "choices[]", "choices[].end", *counts}
    assert set(API.response.wanted) == whole
    assert set(API.event.wanted) == whole | {"choices[].text", "delta.text"}


@pytest.mark.parametrize(
    ("document", "requested", "responded"),
    [
        ({"model": "m"}, "m", "m"),
        ({"model": "m", "deployment": {"name": "d"}, "message": {"model": "x"}}, "m", "x"),
        ({"model": None, "deployment": {"name": "d"}}, "d", None),
        ({"model": "", "message": {"model": 1}}, None, None),
        ({"model": ["m"], "deployment": "d", "message": []}, None, None),
        ({}, None, None),
    ],
)
def test_models(document: dict[str, object], requested: str | None, responded: str | None) -> None:
    """The model is the first name at one of its places."""
    asked = API.request.read(json.dumps(document).encode())
    assert asked is not None
    assert API.requested_model(asked) == requested
    assert API.responded_model(read(API, document)) == responded


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"choices": [{"text": "a"}]}, True),
        ({"choices": [{"text": ""}, {"text": "a"}]}, True),
        ({"delta": {"text": ["call"]}}, True),
        ({"choices": [{"text": ""}], "delta": {"text": None}}, False),
        ({"choices": [{"role": "assistant"}], "delta": {}}, False),
        ({"choices": None, "delta": "text"}, False),
        ({"choices": [], "delta": {"text": []}}, False),
        ({}, False),
    ],
)
def test_has_content(event: dict[str, object], *, expected: bool) -> None:
    """Content is something that is not empty at one of its places."""
    assert API.has_content(read(API, event)) is expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"error": {"message": "overloaded"}}, True),
        ({"error": "overloaded"}, True),
        ({"failure": {"reason": "overloaded"}}, True),
        ({"error": None, "failure": {"reason": ""}}, False),
        ({"error": {}}, False),
        ({"failure": {"other": 1}}, False),
        ({"state": {"why": "broken"}}, True),
        ({"state": {"why": False}}, True),
        ({"state": {"why": "stop"}}, False),
        ({"state": {"why": None}}, False),
        ({"state": "broken"}, False),
        ({}, False),
    ],
)
def test_has_error(document: dict[str, object], *, expected: bool) -> None:
    """An error is something that is not empty at one of its places, or one of some values."""
    assert API.has_error(read(API, document)) is expected


def test_is_finish() -> None:
    """An event ends an answer if it says so anywhere."""
    assert API.is_finish(read(API, {"choices": [{"end": None}, {"end": "stop"}]}))
    assert not API.is_finish(read(API, {"choices": [{"end": None}]}))
    assert not API.is_finish(read(API, {"choices": []}))
    assert not REPORTED.is_finish(read(REPORTED, {"choices": [{"end": "stop"}]}))


def test_is_final() -> None:
    """Counts beside something at the place for running ones are running; without such a place all are."""
    assert not API.is_final(read(API, {"choices": [{}]}))
    assert API.is_final(read(API, {"choices": []}))
    assert API.is_final(read(API, {"choices": None}))
    assert API.is_final(read(API, {}))
    assert not REPORTED.is_final(read(REPORTED, {}))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"usage": {"input": 1, "cached": 2, "written": 3, "output": 4}}, [1, 2, 3, 4]),
        ({"usage": {"input": 1, "output": 0}}, [1, None, None, 0]),
        ({"cached": 5}, [None, 5, None, None]),
        ({"usage": {"cached": 2}, "cached": 5}, [None, 2, None, None]),
        ({"usage": {"cached": None}, "cached": 5}, [None, 5, None, None]),
        ({"result": {"tokens": [{"input": 1}, {"output": "x"}, {"output": 6}, {"output": 7}]}}, [None, None, None, 13]),
        ({"usage": {"input": "x", "cached": -1, "written": 1.5, "output": True}}, [None, None, None, None]),
        ({"usage": None, "cached": {}}, [None, None, None, None]),
        ({"usage": [1, 2]}, [None, None, None, None]),
        ({}, [None, None, None, None]),
    ],
)
def test_counts(document: dict[str, object], expected: list[int | None]) -> None:
    """Each term is the sum of the counts at the first of its places that has any; what is no count is absent."""
    counts = API.counts(read(API, document))
    assert [counts.get(API.terms.index(term)) for term in (*INPUT, *OUTPUT)] == expected


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({}, Usage()),
        ({INPUT[0]: 1, INPUT[1]: 2, INPUT[2]: 3, OUTPUT[0]: 4}, Usage(6, 4, 10, 2)),
        ({INPUT[0]: 1}, Usage(input_tokens=1)),
        ({INPUT[1]: 2}, Usage(input_tokens=2, cached_input_tokens=2)),
        ({OUTPUT[0]: 0}, Usage(output_tokens=0)),
        ({INPUT[0]: 0, OUTPUT[0]: 0}, Usage(0, 0, 0)),
    ],
)
def test_total(counts: dict[Places, int], usage: Usage) -> None:
    """Absent terms are left out of a sum, a sum of none is absent, and the total needs both of its parts."""
    assert API.total({API.terms.index(term): count for term, count in counts.items()}) == usage


@pytest.mark.parametrize(
    ("reported", "usage"),
    [((1, 2, 4), Usage(1, 2, 4)), ((1, 2, None), Usage(1, 2, 3)), ((1, None, 4), Usage(1, None, 4))],
)
def test_total_reported(reported: tuple[int | None, ...], usage: Usage) -> None:
    """A total that is reported is taken as it is."""
    document = {"usage": {name: n for name, n in zip(REPORTED.usage, reported, strict=True) if n is not None}}
    assert usage_of(REPORTED, document) == usage


def test_later_reports() -> None:
    """Partial reports merge term by term, the later one counts, and sums are made last."""
    counts = API.counts(read(API, {"usage": {"input": 10, "cached": 5, "output": 1}}))
    counts.update(API.counts(read(API, {"usage": {"output": 30, "cached": 4}})))
    assert API.total(counts) == Usage(14, 30, 44, 4)


EVENTS = st.fixed_dictionaries(
    {"text": st.text()},
    optional={
        "usage": st.none() | st.dictionaries(st.sampled_from(["input", "output", "n"]), st.none() | st.integers(0, 9)),
        "cached": st.none() | st.integers(0, 9),
        "choices": st.lists(st.fixed_dictionaries({"end": st.none() | st.text()}), max_size=2),
        "result": st.none() | st.builds(lambda n: {"tokens": [{"output": n}]}, st.integers(0, 9)),
        "error": st.none() | st.text() | st.integers() | st.dictionaries(st.text(), st.text(), max_size=1),
        "failure": st.builds(lambda reason: {"reason": reason}, st.none() | st.text()),
        "state": st.builds(lambda why: {"why": why}, st.sampled_from([None, "stop", "broken", False])),
    },
)


@given(
    event=EVENTS,
    indent=st.sampled_from([None, 1, "\t"]),
    separators=st.sampled_from([(",", ":"), (", ", " : "), (",\r\n", "\r\n:\t\n")]),
    ascii_only=st.booleans(),
)
def test_has_news(
    event: dict[str, object], *, indent: int | str | None, separators: tuple[str, str], ascii_only: bool
) -> None:
    """No event with counts, an error or the end of an answer is passed over, however it is laid out."""
    data = json.dumps(event, indent=indent, separators=separators, ensure_ascii=ascii_only)
    found = read(API, event)
    if API.counts(found) or API.has_error(found) or API.is_finish(found):
        assert API.has_news(data.encode(errors="surrogatepass"))


@pytest.mark.parametrize(
    "event",
    [
        {"usage": None, "error": None, "choices": [{"end": None}]},
        {"choices": [{"text": 'it says "usage": {"output": 1}'}]},
        {"choices": [{"text": "usage"}]},
        {"text": "usage", "x": {"a": "error"}},
        {"result": {"text": "so"}, "message": {"text": "so"}, "failure": {"reason": None}, "state": {"why": "stop"}},
        {},
    ],
)
def test_has_no_news(event: dict[str, object]) -> None:
    """Events of plain content are not decoded, also where the content is about usage, or beside where it would be."""
    assert not API.has_news(json.dumps(event).encode())
    assert not API.has_news(json.dumps(event, indent=1).encode())
