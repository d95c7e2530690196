"""What `extproc config istio` is asked for, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]
Version: TypeAlias = tuple[int, int]

OLDEST: Version = (1, 22)

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_SELECTOR = re.compile(r"(?P<key>([-a-zA-Z0-9.]+/)?[-a-zA-Z0-9._]+)=(?P<value>[-a-zA-Z0-9._]+)")
_VERSION = re.compile(r"1\.(\d{2})(\.\d+)?")
_PATH = re.compile(r"/[!-~]+")
_SOCKET = re.compile(r"unix:/[!-~]{1,106}")
_HEADER = re.compile(r"(?P<name>[-a-z0-9_]+)=(?P<value>[-a-z0-9]+)")
_MAX_PORT = 65535


class OptionError(ValueError):
    """A value that cannot be; the message says what can."""


@dataclass(frozen=True)
class Host:
    """A host that calls to models go to."""

    name: str
    port: int = 80
    """The one that applications call, by plain HTTP."""
    path: str | None = None
    """What the path `/` stands for."""

    @property
    def in_mesh(self) -> bool:
        """It is a Service of the cluster: Istio knows it."""
        return self.name.endswith(".svc.cluster.local")


@dataclass(frozen=True)
class Gateway:
    """The gateways with these labels."""

    namespace: str
    selector: Labels


@dataclass(frozen=True)
class Service:
    """A server that is a Service of the mesh."""

    host: str
    port: int

    @property
    def cluster(self) -> str:
        """Istio's name for its cluster."""
        return f"outbound|{self.port}||{self.host}"


@dataclass(frozen=True)
class Socket:
    """A server beside each proxy."""

    path: str
    """Of the Unix socket."""
    cluster = "llm-proxy"
    """Our name for its cluster."""


@dataclass(frozen=True)
class IstioOptions:
    """For whom the manifests are."""

    hosts: tuple[Host, ...]
    namespace: str
    workload_selector: Labels
    """Empty: all workloads of the namespace."""
    istio_version: Version | None
    """`None`: all versions, each proxy by its own."""
    server: Service | Socket
    gateway: Gateway | None
    gateway_ports: tuple[int, ...]
    """Of the gateways' servers, as their Gateway names them."""
    header_name: str
    """Calls with this header and value have routes of their own."""
    header_value: str


def host(text: str) -> Host:
    """Read HOST[:PORT][=PATH].

    Raises:
        OptionError: it is not that.
    """
    address, _, path = text.partition("=")
    name, colon, port = address.partition(":")
    if not _HOST.fullmatch(name) or (path == "") != ("=" not in text) or (path and not _PATH.fullmatch(path)):
        raise OptionError(
            f"{text!r} is no HOST[:PORT][=PATH]: a full host name in lower case, without wildcards, as in "
            "dashscope.aliyuncs.com=/compatible-mode/v1/chat/completions or vllm.models.svc.cluster.local:8000"
        )
    return Host(name, _port(port, text) if colon else 80, path or None)


def namespace(text: str) -> str:
    """Read the name of a Kubernetes namespace.

    Raises:
        OptionError: it is not that.
    """
    if not _NAMESPACE.fullmatch(text):
        raise OptionError(f"{text!r} is no namespace: up to 63 lower-case letters, digits and -")
    return text


def label(text: str) -> tuple[str, str]:
    """Read KEY=VALUE.

    Raises:
        OptionError: it is not that.
    """
    found = _SELECTOR.fullmatch(text)
    if not found:
        raise OptionError(f"{text!r} is no label KEY=VALUE, as in app=sleep")
    return found["key"], found["value"]


def version(text: str) -> Version | None:
    """Read a version of Istio, or `all`, which is `None`.

    Raises:
        OptionError: it is not that, or is too old.
    """
    if text == "all":
        return None
    found = _VERSION.fullmatch(text)
    if not found or (1, int(found[1])) < OLDEST:
        raise OptionError(f"{text!r} is no version of Istio that is supported: 1.22 or later, as in 1.30, or `all`")
    return 1, int(found[1])


def server(text: str) -> Service | Socket:
    """Read SERVICE.NAMESPACE.svc.cluster.local:PORT (the cluster's domain may be another), or unix:PATH.

    Raises:
        OptionError: it is not that.
    """
    if _SOCKET.fullmatch(text):
        return Socket(text.removeprefix("unix:"))
    name, _, port = text.rpartition(":")
    if not _HOST.fullmatch(name) or name.split(".")[2:3] != ["svc"]:
        raise OptionError(
            f"{text!r} is no address of a Service, as in llm-proxy.llm-system.svc.cluster.local:50051, and no Unix "
            "socket, as in unix:/var/run/llm-proxy/extproc.sock"
        )
    return Service(name, _port(port, text))


def gateway(text: str) -> Gateway | None:
    """Read NAMESPACE/KEY=VALUE, or `none`, which is `None`.

    Raises:
        OptionError: it is not that.
    """
    if text == "none":
        return None
    place, slash, selector = text.partition("/")
    if not slash:
        raise OptionError(
            f"{text!r} is no gateway: NAMESPACE/KEY=VALUE with a label of its pods, as in "
            "istio-system/istio=ingressgateway, or `none`"
        )
    return Gateway(namespace(place), (label(selector),))


def header(text: str) -> tuple[str, str]:
    """Read NAME=VALUE of a header, in lower case.

    Raises:
        OptionError: it is not that.
    """
    found = _HEADER.fullmatch(text)
    if not found:
        raise OptionError(f"{text!r} is no header NAME=VALUE in lower case, as in user-type=subscriber")
    return found["name"], found["value"]


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _MAX_PORT):
        raise OptionError(f"{whole!r}: {text!r} is no port; 1 to {_MAX_PORT}")
    return int(text)
