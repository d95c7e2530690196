"""Forms to a document of their text fields."""

from __future__ import annotations

import json
from email.message import EmailMessage

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.facts import Gap
from extproc.core.framing import Multipart, boundary
from tests import cuts
from tests.cuts import bytewise, every_way
from tests.framings import documents, peak_memory

WANTED = ("model", "stream")


def part(disposition: str, content: bytes) -> bytes:
    """Encode a part and the delimiter before it."""
    return b"--b\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"


def read(pieces: list[bytes], boundary: bytes = b"b", limit: int = 1000) -> tuple[dict[str, str] | None, list[Gap]]:
    """Read a form; return its fields, if there are any to be had, and the gaps."""
    found = documents(Multipart(limit, boundary, WANTED), pieces)
    forms = [json.loads(document) for document in found if isinstance(document, bytes)]
    assert len(forms) <= 1
    return (forms[0] if forms else None), [gap for gap in found if isinstance(gap, Gap)]


MODEL = part('name="model"', b"whisper-1")
FILE = part('name="file"; filename="a.mp3"\r\nContent-Type: audio/mpeg', b"\xff\xf3\r\n--\r\n\r\n--a\r\n--bx")
END = b"--b--\r\n"
LINES = "a\r\n\r\n--\n-\r\n--c\nb"
ALIKE = "a\r\n--bc\r\n--b-\r\n--b c\r\nd"
FORMS = {
    "field": (MODEL + END, {"model": "whisper-1"}),
    "field, file": (MODEL + FILE + END, {"model": "whisper-1"}),
    "file, field": (FILE + MODEL + END, {"model": "whisper-1"}),
    "two fields": (MODEL + part('name="stream"', b"true") + END, {"model": "whisper-1", "stream": "true"}),
    "other fields": (part('name="prompt"', b"a") + MODEL + part('name="models"', b"x") + END, {"model": "whisper-1"}),
    "the last counts": (part('name="model"', b"a") + MODEL + END, {"model": "whisper-1"}),
    "no field": (FILE + END, {}),
    "no part": (END, {}),
    "empty field": (part('name="model"', b"") + END, {"model": ""}),
    "model as a file": (part('name="model"; filename="m"', b"a") + END, {}),
    "model as a nameless file": (part('name="model"; filename=""', b"a") + END, {}),
    "model as a file, encoded name": (part("name=\"model\"; filename*=UTF-8''m", b"a") + END, {}),
    "lf only": ((MODEL + FILE + END).replace(b"\r\n", b"\n"), {"model": "whisper-1"}),
    "cr in the content": (part('name="model"', b"a\r") + END, {"model": "a\r"}),
    "lines in the content": (part('name="model"', LINES.encode()) + END, {"model": LINES}),
    "begins like the delimiter": (part('name="model"', ALIKE.encode()) + END, {"model": ALIKE}),
    "delimiter in a line": (part('name="model"', b"a--b--") + END, {"model": "a--b--"}),
    "preamble": (b"This is a form.\r\n" + MODEL + END, {"model": "whisper-1"}),
    "line end before": (b"\r\n" + MODEL + END, {"model": "whisper-1"}),
    "epilogue": (MODEL + END + MODEL.replace(b"whisper", b"x") + END, {"model": "whisper-1"}),
    "no line end at the end": (MODEL + b"--b--", {"model": "whisper-1"}),
    "padding": (MODEL.replace(b"--b", b"--b \t ") + b"--b-- ", {"model": "whisper-1"}),
    "order of parameters": (part('x=y; NAME = "model" ;z', b"m") + END, {"model": "m"}),
    "unquoted": (part("name=model", b"m") + END, {"model": "m"}),
    "unquoted, unfinished quote": (part('name="model', b"m") + END, {}),
    "name in another value": (part('x="; name=model"', b"m") + END, {}),
    "quote in another value": (part(r'x="\"; y=\""; name="model"', b"m") + END, {"model": "m"}),
    "other headers": (
        b"--b\r\nContent-Type: text/plain\r\nCONTENT-DISPOSITION:form-data;name=model\r\nX: y\r\n\r\nm\r\n" + END,
        {"model": "m"},
    ),
    "no headers": (b"--b\r\n\r\nm\r\n" + END, {}),
    "another disposition": (b'--b\r\nContent-Disposition: attachment; name="model"\r\n\r\nm\r\n' + END, {}),
    "no blank line between": (b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n--b--', {"model": ""}),
    "characters of many bytes": (part("name=model", "\u4f60\U0001f600".encode()) + END, {"model": "\u4f60\U0001f600"}),
    "broken characters": (part('name="model"', b"a\xff") + END, {"model": "a\ufffd"}),
    "broken characters in the head": (
        b"--b\r\n\xff: \xff\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n" + END,
        {"model": "m"},
    ),
}


@pytest.mark.parametrize(("body", "expected"), FORMS.values(), ids=FORMS.keys())
def test_form(body: bytes, expected: dict[str, str]) -> None:
    """The wanted text fields are found, and no others, however the body is cut."""
    for pieces in every_way(body):
        assert read(pieces) == (expected, [])


BROKEN = {
    "no form": (b'{"model": "m"}', None, Gap.UNPARSABLE),
    "another boundary": (MODEL.replace(b"--b", b"--c") + b"--c--", None, Gap.UNPARSABLE),
    "begun": (b"--b", None, Gap.UNPARSABLE),
    "head begun": (b"--b\r\nContent", {}, Gap.TRUNCATED),
    "content begun": (MODEL + part('name="stream"', b"tr")[:-2], {"model": "whisper-1"}, Gap.TRUNCATED),
    "no end": (MODEL + part('name="stream"', b"true"), {"model": "whisper-1"}, Gap.TRUNCATED),
    "end begun": (MODEL + FILE + b"--b-", {"model": "whisper-1"}, Gap.TRUNCATED),
}


@pytest.mark.parametrize(("body", "expected", "gap"), BROKEN.values(), ids=BROKEN.keys())
def test_broken(body: bytes, expected: dict[str, str] | None, gap: Gap) -> None:
    """What is no form, or not a whole one, is named; fields that were whole count."""
    for pieces in every_way(body):
        assert read(pieces) == (expected, [gap])


def test_another_implementation() -> None:
    """A form that httpx encodes is read, with the boundary that it names."""
    request = httpx.Request(
        "POST",
        "http://example.com",
        data={"model": "gpt-4o-transcribe", "stream": "true", "prompt": "x" * 5000},
        files={"file": ("a.wav", b"RIFF" + bytes(range(256)) * 4, "audio/wav")},
    )
    limits = boundary(request.headers["content-type"])
    assert limits is not None
    for size in (1, 7, 1000, 10_000):
        body = request.read()
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        assert read(pieces, limits) == ({"model": "gpt-4o-transcribe", "stream": "true"}, [])


@pytest.mark.parametrize("size", [0, 1023, 1024, 1025, 1026, 1027, 5000])
def test_field_too_long(size: int) -> None:
    """A field over 1 KiB, or over the limit, leaves a gap; others count."""
    for content in (b"x" * size, b"\r\n" * (size // 2) + b"x" * (size % 2)):
        body = part('name="model"', content) + part('name="stream"', b"true") + END
        for pieces in ([body], bytewise(body)):
            expected = {"stream": "true"} | ({"model": content.decode()} if size <= 1024 else {})
            assert read(pieces, limit=10_000) == (expected, [] if size <= 1024 else [Gap.TOO_LARGE])
            expected = {"stream": "true"} | ({"model": content.decode()} if size <= 20 else {})
            assert read(pieces, limit=20) == (expected, [] if size <= 20 else [Gap.TOO_LARGE])


@pytest.mark.parametrize("size", [*range(16 * 1024 - 57, 16 * 1024 - 53), *range(16 * 1024 - 6, 16 * 1024 + 3)])
def test_long_head(size: int) -> None:
    """A part with a head that does not end is skipped; what follows counts."""
    long = b"--b\r\nX: " + b"x" * size + b"\r\nContent-Disposition: form-data; name=stream\r\n\r\ntrue\r\n"
    body = long + MODEL + END
    fields, gaps = read([body])
    assert gaps == []
    assert fields in ({"model": "whisper-1"}, {"model": "whisper-1", "stream": "true"})
    assert read([*bytewise(body[:15_000]), body[15_000:]]) == (fields, [])
    assert read([body[:15_000], *bytewise(body[15_000:])]) == (fields, [])
    assert read([long.replace(b"\r\n\r\n", b"\r\n") * 3 + MODEL + END])[1] == []


def test_memory() -> None:
    """Files, fields and heads of any length take no more memory than a few chunks."""
    file = FILE[: FILE.index(b"\r\n\r\n") + 4]
    field = MODEL[: MODEL.index(b"\r\n\r\n") + 4]
    for start in (b"", b"--b\r\n", b"--b", file, field):
        for chunk in (b"x" * 10_000, b"\r\n--" * 2500, b"\n--b" * 2500, b" " * 10_000, b"--b\r\n\r\n" * 1000):
            assert peak_memory(Multipart(100_000, b"b", WANTED), [start, *[chunk] * 8]) < 60_000


PIECES = [
    b"--b",
    b"--",
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"-",
    b" ",
    b"b",
    b"x",
    MODEL,
    FILE,
    END,
    b'; name="model"',
    b"\xff",
]


@given(body=st.lists(st.sampled_from(PIECES)).map(b"".join), places=cuts.places)
def test_never_raises(body: bytes, places: list[float]) -> None:
    """No bytes make it raise, and no cut changes what it finds."""
    found = read([body])
    assert read(cuts.at(places, body)) == found
    assert read(bytewise(body)) == found


NAMED: dict[str, bytes | None] = {
    "multipart/form-data; boundary=b": b"b",
    "multipart/form-data;boundary=----WebKitFormBoundary3hPnbQmTWdhIF3aw": b"----WebKitFormBoundary3hPnbQmTWdhIF3aw",
    'Multipart/Form-Data ; charset=utf-8; Boundary="a b;c=d"': b"a b;c=d",
    'multipart/form-data; boundary="gc0pJq0M:08jU534c0p\'()+_,-./:=?"': b"gc0pJq0M:08jU534c0p'()+_,-./:=?",
    "multipart/form-data; boundary=b; charset=utf-8": b"b",
    "multipart/form-data; boundary=b ": b"b",
    "multipart/form-data; boundary=\u4f60": "\u4f60".encode(),
    "multipart/form-data; boundary=\ud83d": b"?",
    "multipart/form-data; boundary=": None,
    'multipart/form-data; boundary=""': None,
    'multipart/form-data; boundary="b': None,
    "multipart/form-data": None,
    "multipart/form-data; xboundary=b": None,
    "multipart/mixed; boundary=b": None,
    "application/json; boundary=b": None,
    "": None,
}


@pytest.mark.parametrize(("content_type", "expected"), NAMED.items())
def test_boundary(content_type: str, expected: bytes | None) -> None:
    """The boundary is read out of the header of a form, and of nothing else."""
    assert boundary(content_type) == expected
    if expected and expected.isascii() and content_type.isascii():
        message = EmailMessage()
        message["Content-Type"] = content_type
        assert message.get_boundary() == expected.decode()
