from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from extproc.settings import NAMES, Settings, SettingsError, load, parse

DEFAULT = Settings()

# For each setting: a value that is not the default, and the same as text.
VALUES: dict[str, tuple[Any, str]] = {
    "listen": ("127.0.0.1:1", "127.0.0.1:1"),
    "metrics": ("[::1]:2", "[::1]:2"),
    "transport": ("grpcio", "grpcio"),
    "workers": (4, "4"),
    "tls_certificate": ("/tls/tls.crt", "/tls/tls.crt"),
    "tls_key": ("/tls/tls.key", "/tls/tls.key"),
    "tls_client_ca": ("/tls/ca.crt", "/tls/ca.crt"),
    "namespace": ("my.own", "my.own"),
    "log_level": ("debug", "debug"),
    "drain_seconds": (1.5, "1.5"),
    "label_limit": (5, "5"),
    "pinned_models": (("a", "b"), "a, b"),
    "pinned_hosts": (("a.example",), "a.example"),
    "max_document_bytes": (4096, "4096"),
    "max_decoded_bytes": (8192, "8192"),
    "detect_hosts": (("b.example", "c.example"), "b.example,c.example"),
}

# What has to be set for a setting to make sense.
NEEDED: dict[str, dict[str, Any]] = {
    "tls_certificate": {"tls_key": "k"},
    "tls_key": {"tls_certificate": "c"},
    "tls_client_ca": {"tls_certificate": "c", "tls_key": "k"},
}


@dataclass
class Sources:
    """Where settings come from."""

    folder: Path

    def load(
        self,
        options: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        file: str | None = None,
    ) -> Settings:
        """Load settings; the file is given by its text."""
        path = None
        if file is not None:
            path = self.folder / "extproc.yaml"
            path.write_text(file)
        given = {name: parse(name, text) for name, text in (options or {}).items()}
        return load(given, {"PATH": "/bin", **(environment or {})}, path)

    def refused(self, **sources: Any) -> str:  # noqa: ANN401 - as load
        """Load settings that cannot be used; return what is said, the file's path left out."""
        with pytest.raises(SettingsError) as error:
            self.load(**sources)
        message = str(error.value)
        assert "\n" not in message
        return message.replace(f"{self.folder}/", "")


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Give sources with nothing in them."""
    return Sources(tmp_path)


def as_option(name: str) -> dict[str, Any]:
    """Give a setting as an option."""
    return {"options": {name: VALUES[name][1]}}


def as_variable(name: str) -> dict[str, Any]:
    """Give a setting as an environment variable."""
    return {"environment": {f"EXTPROC_{name.upper()}": VALUES[name][1]}}


def as_key(name: str) -> dict[str, Any]:
    """Give a setting as a key of the file."""
    return {"file": yaml.safe_dump({name: json.loads(json.dumps(VALUES[name][0]))})}


def test_every_setting_is_in_the_table() -> None:
    """The tests below are for every setting, with a value of its own."""
    assert tuple(VALUES) == NAMES
    assert all(value != getattr(DEFAULT, name) for name, (value, _) in VALUES.items())


def test_nothing_set(sources: Sources) -> None:
    """Without any source, all settings have their defaults."""
    assert sources.load() == DEFAULT
    assert (DEFAULT.listen, DEFAULT.metrics) == ("127.0.0.1:50051", "127.0.0.1:9464")
    assert (DEFAULT.namespace, DEFAULT.label_limit, DEFAULT.log_level) == ("asm.llmproxy", 1000, "warning")


@pytest.mark.parametrize("way", [as_option, as_variable, as_key])
@pytest.mark.parametrize("name", NAMES)
def test_each_setting_in_each_way(sources: Sources, name: str, way: Callable[[str], dict[str, Any]]) -> None:
    """Every setting can be set as an option, as a variable and as a key, and sets nothing else."""
    needed = NEEDED.get(name, {})
    environment = {f"EXTPROC_{other.upper()}": text for other, text in needed.items()}
    given = way(name)
    given["environment"] = environment | given.get("environment", {})
    assert sources.load(**given) == replace(DEFAULT, **{name: VALUES[name][0], **needed})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("option", "variable", "key"), "option"),
        (("option", "key"), "option"),
        (("option", "variable"), "option"),
        (("variable", "key"), "variable"),
        (("key",), "key"),
    ],
)
def test_precedence(sources: Sources, given: tuple[str, ...], expected: str) -> None:
    """Options come before variables, variables before the file."""
    settings = sources.load(
        {"namespace": "option"} if "option" in given else None,
        {"EXTPROC_NAMESPACE": "variable"} if "variable" in given else None,
        "namespace: key" if "key" in given else None,
    )
    assert settings.namespace == expected


def test_sources_add_up(sources: Sources) -> None:
    """What one source leaves out another may set."""
    settings = sources.load({"listen": "h:1"}, {"EXTPROC_METRICS": "h:2"}, "namespace: n")
    assert settings == replace(DEFAULT, listen="h:1", metrics="h:2", namespace="n")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "null"])
def test_empty_file(sources: Sources, text: str) -> None:
    """A file that sets nothing is no error."""
    assert sources.load(file=text) == DEFAULT


def test_limits() -> None:
    """What an exchange may cost follows from the settings."""
    limits = Settings(max_document_bytes=2048, max_decoded_bytes=4096).limits
    assert (limits.document, limits.decoded) == (2048, 4096)


@pytest.mark.parametrize(
    ("given", "where", "known"),
    [
        ({"environment": {"EXTPROC_LISTN": "h:1"}}, "environment variable EXTPROC_LISTN", "EXTPROC_{}"),
        ({"environment": {"EXTPROC_listen": "h:1"}}, "environment variable EXTPROC_listen", "EXTPROC_{}"),
        ({"environment": {"EXTPROC_": "h:1"}}, "environment variable EXTPROC_", "EXTPROC_{}"),
        ({"file": "# settings\n\nlistn: h:1"}, "extproc.yaml, line 3: listn", "{}"),
        ({"file": "Listen: h:1"}, "extproc.yaml, line 1: Listen", "{}"),
        ({"file": "label-limit: 1"}, "extproc.yaml, line 1: label-limit", "{}"),
        ({"file": "1: 2"}, "extproc.yaml, line 1: 1", "{}"),
        ({"file": "<<: {listen: 'h:1'}"}, "extproc.yaml, line 1: <<", "{}"),
    ],
)
def test_unknown_name(sources: Sources, given: dict[str, Any], where: str, known: str) -> None:
    """A name that is not known is an error, which says where it stands and which names are known."""
    message = sources.refused(**given)
    assert message.startswith(f"{where} is not known; ")
    names = [known.format(name.upper() if known != "{}" else name) for name in NAMES]
    assert ", ".join(names) in message.partition("known: ")[2]


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"environment": {"EXTPROC_LISTN": "h:1"}}, "did you mean EXTPROC_LISTEN?"),
        ({"file": "label-limit: 1"}, "did you mean label_limit?"),
    ],
)
def test_unknown_name_that_is_almost_known(sources: Sources, given: dict[str, Any], hint: str) -> None:
    """Who mistypes a name is told the right one."""
    assert hint in sources.refused(**given)


# A text that cannot be used, the same as YAML, and what is said of it.
BAD = [
    ("listen", "localhost", "'localhost' is not an address; allowed is HOST:PORT or unix:PATH"),
    ("listen", ":1", "':1' is not an address; allowed is HOST:PORT or unix:PATH"),
    ("listen", "h:65536", "'h:65536' is not an address; allowed is HOST:PORT or unix:PATH"),
    ("listen", "h:-1", "'h:-1' is not an address; allowed is HOST:PORT or unix:PATH"),
    ("listen", "::1:80", "'::1:80' is not an address; allowed is HOST:PORT or unix:PATH"),
    ("listen", "unix:", "'unix:' is not an address; allowed is HOST:PORT or unix:PATH"),
    ("metrics", "unix:/metrics", "'unix:/metrics' is not an address; allowed is HOST:PORT"),
    ("metrics", "a..b:80", "'a..b:80' is not an address; allowed is HOST:PORT"),
    ("transport", "http", "'http' is not one of fast, grpcio"),
    ("workers", "0", "0 is out of range; allowed is a whole number from 1 to 256"),
    ("workers", "257", "257 is out of range; allowed is a whole number from 1 to 256"),
    ("workers", "auto", "'auto' is not a whole number"),
    ("namespace", "", "'' is not a text"),
    ("log_level", "loud", "'loud' is not one of debug, info, warning, error"),
    ("drain_seconds", "soon", "'soon' is not a number"),
    ("drain_seconds", "-1", "-1.0 is out of range; allowed is a number from 0 to 3600"),
    ("drain_seconds", "3601", "3601.0 is out of range; allowed is a number from 0 to 3600"),
    ("drain_seconds", "nan", "nan is out of range; allowed is a number from 0 to 3600"),
    ("label_limit", "1.5", "'1.5' is not a whole number"),
    ("label_limit", "-1", "-1 is out of range; allowed is a whole number from 0"),
    ("max_document_bytes", "0", "0 is out of range; allowed is a whole number from 1024"),
    ("max_decoded_bytes", "1023", "1023 is out of range; allowed is a whole number from 1024"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_bad_text(sources: Sources, name: str, text: str, message: str) -> None:
    """A value that is not allowed is an error, which says where it stands and what is allowed."""
    with pytest.raises(SettingsError) as error:
        parse(name, text)
    assert str(error.value) == f"{name}: {message}"
    variable = f"EXTPROC_{name.upper()}"
    assert sources.refused(environment={variable: text}) == f"environment variable {variable}: {name}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("listen: 50051", "listen: 50051 is not a text"),
        ("listen: [h:1]", "listen: ('h:1',) is not a text"),
        ("listen:", "listen: None is not a text"),
        ("listen: h", "listen: 'h' is not an address; allowed is HOST:PORT or unix:PATH"),
        ("log_level: loud", "log_level: 'loud' is not one of debug, info, warning, error"),
        ("drain_seconds: true", "drain_seconds: True is not a number"),
        ("drain_seconds: '1'", "drain_seconds: '1' is not a number"),
        ("drain_seconds: 1e9", "drain_seconds: '1e9' is not a number"),  # YAML 1.1 wants 1.0e+9
        ("drain_seconds: .inf", "drain_seconds: inf is out of range; allowed is a number from 0 to 3600"),
        ("label_limit: 1.0", "label_limit: 1.0 is not a whole number"),
        ("label_limit: -1", "label_limit: -1 is out of range; allowed is a whole number from 0"),
        ("pinned_models: gpt-4o", "pinned_models: 'gpt-4o' is not a list of texts"),
        ("pinned_models: [4]", "pinned_models: (4,) is not a list of texts"),
        ("pinned_models: ['']", "pinned_models: ('',) is not a list of texts"),
        ("pinned_hosts: {a: b}", "pinned_hosts: {'a': 'b'} is not a list of texts"),
        ("namespace: a\nnamespace: b", "namespace is set twice"),
        ("tls_key: 1", "tls_key: 1 is not a text"),
    ],
)
def test_bad_value_in_the_file(sources: Sources, text: str, message: str) -> None:
    """A value that is not allowed, or a second one, is an error, which names the line."""
    line = 2 + text.count("\n")
    assert sources.refused(file=f"# settings\n{text}\n") == f"extproc.yaml, line {line}: {message}"


@pytest.mark.parametrize("text", ["[listen]", "listen", "42", "- listen: h:1"])
def test_file_that_is_no_mapping(sources: Sources, text: str) -> None:
    """A file of something else than settings is an error, which says which keys there are."""
    assert sources.refused(file=text) == f"extproc.yaml: a mapping is expected; known keys: {', '.join(NAMES)}, formats"


@pytest.mark.parametrize(
    "text",
    ["listen: [", "a: b: c", "\tlisten: x", "listen: !!python/object:os.system {}", "? [a]\n: b", "a: 1\n---\nb: 2"],
)
def test_file_that_is_not_yaml(sources: Sources, text: str) -> None:
    """A file that cannot be read as YAML is an error, which says where reading stopped."""
    message = sources.refused(file=text)
    assert message.startswith("extproc.yaml is not YAML: ")
    assert "line " in message


def test_file_that_is_not_text(tmp_path: Path) -> None:
    """A file of other bytes is not YAML."""
    file = tmp_path / "extproc.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not YAML"):
        load({}, {}, file)


@pytest.mark.parametrize(("name", "reason"), [("missing.yaml", "No such file or directory"), (".", "Is a directory")])
def test_file_that_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    """A file that cannot be read is an error with the system's reason."""
    with pytest.raises(SettingsError) as error:
        load({}, {}, tmp_path / name)
    assert str(error.value) == f"cannot read {tmp_path / name}: {reason}"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("label_limit", True, "label_limit: True is not a whole number"),
        ("pinned_models", ["a"], "pinned_models: ['a'] is not a list of texts"),
        ("listen", "h", "listen: 'h' is not an address"),
    ],
)
def test_settings_are_checked_wherever_they_are_made(name: str, value: object, message: str) -> None:
    """There are no settings with a value that is not allowed."""
    with pytest.raises(SettingsError) as error:
        Settings(**{name: value})  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"workers": "2", "transport": "grpcio"},
            "workers: 2 is out of range; allowed with transport grpcio is 1",
        ),
        ({"tls_certificate": "c"}, "tls_certificate is set without tls_key; set both or none"),
        ({"tls_key": "k"}, "tls_key is set without tls_certificate; set both or none"),
        ({"tls_client_ca": "a"}, "tls_client_ca is set without tls_certificate; set both or none"),
    ],
)
def test_settings_that_do_not_go_together(sources: Sources, given: dict[str, str], message: str) -> None:
    """Settings of which one makes no sense with or without the other are refused, wherever they come from."""
    assert sources.refused(options=given) == message
    assert sources.refused(environment={f"EXTPROC_{name.upper()}": text for name, text in given.items()}) == message


def test_empty_is_none(sources: Sources) -> None:
    """A file that need not be there can be set to nothing, which is the default."""
    assert sources.load({"tls_certificate": "", "tls_key": ""}, {"EXTPROC_TLS_CLIENT_CA": ""}) == DEFAULT
