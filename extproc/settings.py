"""What can be set, and from where: options, environment variables, a YAML file, in this order of precedence.

`Settings` is the one place that names the settings; options (`--label-limit`), variables (`EXTPROC_LABEL_LIMIT`) and
keys of the file (`label_limit`) follow from its fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from extproc.core.exchange import Limits
from extproc.core.format import Format

ENVIRONMENT = "EXTPROC_"
LOG_LEVELS = ("debug", "info", "warning", "error")
TRANSPORTS = ("fast", "grpcio")


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it and says what is allowed."""


def _setting(default: object, text: str, **allowed: object) -> Any:  # noqa: ANN401 - as dataclasses.field
    return field(default=default, metadata={"text": text, **allowed})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked; each with its default."""

    listen: str = _setting("127.0.0.1:50051", "Where Envoy connects: HOST:PORT or unix:PATH.", address="unix")
    metrics: str = _setting("127.0.0.1:9464", "Where GET /metrics is served: HOST:PORT.", address="tcp")
    transport: str = _setting("fast", "What speaks gRPC with Envoy.", choices=TRANSPORTS)
    workers: int = _setting(1, "Processes that serve; more than one only with transport fast.", minimum=1, maximum=256)
    tls_certificate: str = _setting("", "File with the server's certificate (PEM); none: no TLS.", optional=True)
    tls_key: str = _setting("", "File with the key of the certificate (PEM).", optional=True)
    tls_client_ca: str = _setting(
        "", "File with the CAs (PEM) whose certificates clients must have; none: clients need none.", optional=True
    )
    namespace: str = _setting("asm.llmproxy", "Namespace of the dynamic metadata.")
    log_level: str = _setting("warning", "Least severe messages logged.", choices=LOG_LEVELS)
    drain_seconds: float = _setting(
        30.0, "Seconds that open streams get to finish after SIGTERM.", minimum=0, maximum=3600
    )
    label_limit: int = _setting(
        1000, "Distinct values a label may take beside the pinned ones; the rest are `other`.", minimum=0
    )
    pinned_models: tuple[str, ...] = _setting((), "Models that always keep their own label.")
    pinned_hosts: tuple[str, ...] = _setting((), "Hosts that always keep their own label.")
    max_document_bytes: int = _setting(
        Limits().document, "Longest JSON document or event held in memory.", minimum=1024
    )
    max_decoded_bytes: int = _setting(
        Limits().decoded, "Longest body looked at after decoding its Content-Encoding.", minimum=1024
    )
    detect_hosts: tuple[str, ...] = _setting((), "Hosts where whatever is posted is taken for a call to a model.")
    formats: tuple[Format, ...] = ()
    """Declared in the file: extproc/declared.py."""

    def __post_init__(self) -> None:
        for name in NAMES:
            check(name, getattr(self, name))
        _check_together(self)

    @property
    def limits(self) -> Limits:
        """What one exchange may cost."""
        return Limits(document=self.max_document_bytes, decoded=self.max_decoded_bytes)


FORMATS = "formats"
NAMES = tuple(item.name for item in fields(Settings) if item.name != FORMATS)
"""What can be set anywhere; in the file there are also `formats`."""
TEXTS: Mapping[str, str] = {item.name: item.metadata["text"] for item in fields(Settings) if item.name != FORMATS}
DEFAULTS: Mapping[str, object] = {item.name: item.default for item in fields(Settings)}
TYPES: Mapping[str, object] = get_type_hints(Settings)
"""By name: `str`, `int`, `float`, or a tuple of strings."""


def load(options: Mapping[str, object], environment: Mapping[str, str], file: Path | None) -> Settings:
    """Put the settings together; `options` are those given on the command line.

    Raises:
        SettingsError: a name is not known, or a value not allowed; the message says where it stood.
    """
    merged: dict[str, Any] = {**(_from_file(file) if file else {}), **_from_environment(environment), **options}
    return Settings(**merged)


def check(name: str, value: object) -> None:
    """Raise SettingsError unless `value` is allowed for the setting `name`."""
    metadata = next(item.metadata for item in fields(Settings) if item.name == name)
    expected = TYPES[name]
    if expected in (int, float):
        _check_number(name, value, whole=expected is int, metadata=metadata)
    elif expected is str:
        if not isinstance(value, str) or not (value or metadata.get("optional")):
            raise SettingsError(f"{name}: {value!r} is not a text")
        if (choices := metadata.get("choices")) and value not in choices:
            raise SettingsError(f"{name}: {value!r} is not one of {', '.join(choices)}")
        if kind := metadata.get("address"):
            _check_address(name, value, unix=kind == "unix")
    elif not isinstance(value, tuple) or not all(isinstance(item, str) and item for item in value):
        raise SettingsError(f"{name}: {value!r} is not a list of texts")


def host_and_port(address: str) -> tuple[str, int]:
    """Split HOST:PORT; an IPv6 host stands in brackets.

    Raises:
        ValueError: it is no such address.
    """
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ValueError(address)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(address)
    host.encode("idna")  # a UnicodeError is a ValueError
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_number(name: str, value: object, *, whole: bool, metadata: Mapping[str, Any]) -> None:
    kind = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise SettingsError(f"{name}: {value!r} is not {kind}")
    minimum, maximum = metadata["minimum"], metadata.get("maximum", float("inf"))
    if not minimum <= value <= maximum:
        upper = "" if maximum == float("inf") else f" to {maximum}"
        raise SettingsError(f"{name}: {value} is out of range; allowed is {kind} from {minimum}{upper}")


def _check_address(name: str, value: str, *, unix: bool) -> None:
    if unix and value.startswith("unix:") and len(value) > len("unix:"):
        return
    try:
        host_and_port(value)
    except ValueError:
        allowed = "HOST:PORT or unix:PATH" if unix else "HOST:PORT"
        raise SettingsError(f"{name}: {value!r} is not an address; allowed is {allowed}") from None


def _check_together(settings: Settings) -> None:
    if settings.workers > 1 and settings.transport != "fast":
        raise SettingsError(
            f"workers: {settings.workers} is out of range; allowed with transport {settings.transport} is 1"
        )
    for name, other in (
        ("tls_certificate", "tls_key"),
        ("tls_key", "tls_certificate"),
        ("tls_client_ca", "tls_certificate"),
    ):
        if getattr(settings, name) and not getattr(settings, other):
            raise SettingsError(f"{name} is set without {other}; set both or none")


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT) or variable == f"{ENVIRONMENT}CONFIG":
            continue
        name = variable.removeprefix(ENVIRONMENT).lower()
        if name not in NAMES or variable != variable.upper():
            known = [f"{ENVIRONMENT}{known.upper()}" for known in (*NAMES, "config")]
            raise SettingsError(f"environment variable {unknown(variable, known)}")
        try:
            found[name] = parse(name, text)
        except SettingsError as error:
            raise SettingsError(f"environment variable {variable}: {error}") from None
    return found


def parse(name: str, text: str) -> object:
    """Read a setting from text, as options and variables have it; lists are separated by commas."""
    kind = TYPES[name]
    value: object = text
    if kind in (int, float):
        try:
            value = int(text) if kind is int else float(text)
        except ValueError:
            value = text
    elif kind is not str:
        value = tuple(part for item in text.split(",") if (part := item.strip()))
    check(name, value)
    return value


def _from_file(file: Path) -> dict[str, object]:
    from extproc.settings_file import read  # noqa: PLC0415 - most are set otherwise, and need no YAML

    return read(file)


def unknown(name: str, known: list[str] | tuple[str, ...]) -> str:
    """Return what to say of a name that is not known."""
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{name} is not known; {hint}known: {', '.join(known)}"
