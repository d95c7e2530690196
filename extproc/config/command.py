"""`extproc config`: configuration for the proxies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from extproc.config import options as read

DEFAULT_HOSTS = ("dashscope.aliyuncs.com=/compatible-mode/v1/chat/completions", "api.openai.com")
DEFAULT_SERVER = "llm-proxy.llm-system.svc.cluster.local:50051"
DEFAULT_GATEWAY = "istio-system/istio=ingressgateway"


class _Read(click.ParamType[Any]):
    """A value that a function of `options` reads."""

    def __init__(self, name: str, function: Callable[[str], object]) -> None:
        self.name = name
        self._function = function

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Read the text of the option."""
        try:
            return self._function(value) if isinstance(value, str) else value
        except read.OptionError as error:
            self.fail(str(error), param, ctx)


@click.group()
def config() -> None:
    """Write configuration for the proxies."""


@config.command()
@click.option(
    "--host",
    "hosts",
    type=_Read("HOST[:PORT][=PATH]", read.host),
    multiple=True,
    default=DEFAULT_HOSTS,
    help="A host that calls to models go to, as applications call it by plain HTTP, and the path that a call to `/` is "
    "sent to. Repeat it for more. Hosts of the cluster (*.svc.cluster.local) get no ServiceEntry. Default: "
    "dashscope.aliyuncs.com with its chat completions, and api.openai.com.",
)
@click.option(
    "--namespace",
    type=_Read("NAME", read.namespace),
    default="default",
    show_default=True,
    help="Where the calling workloads are; Istio's root namespace (istio-system) for the whole mesh.",
)
@click.option(
    "--workload-selector",
    type=_Read("KEY=VALUE", read.label),
    multiple=True,
    help="Only workloads with this label; repeat it for more labels. Default: all of the namespace.",
)
@click.option(
    "--istio-version",
    type=_Read("VERSION", read.version),
    default="all",
    show_default=True,
    help="Of the proxies. `all`: each proxy by its own version, from 1.22 on.",
)
@click.option(
    "--server-address",
    type=_Read("SERVICE:PORT|unix:PATH", read.server),
    default=DEFAULT_SERVER,
    show_default=True,
    help="The Service of extproc, or the Unix socket of one beside each proxy. Do not name the Service `extproc`: "
    "Kubernetes would make it variables EXTPROC_*.",
)
@click.option(
    "--gateway",
    type=_Read("NAMESPACE/KEY=VALUE", read.gateway),
    default=DEFAULT_GATEWAY,
    show_default=True,
    help="The gateway that calls to models go through, by namespace and a label of its pods; or `none`.",
)
@click.option(
    "--gateway-port",
    "gateway_ports",
    type=click.IntRange(1, 65535),
    multiple=True,
    default=(80, 443),
    show_default=True,
    help="Of the gateway's servers, as its Gateway says.",
)
@click.option(
    "--header",
    type=_Read("NAME=VALUE", read.header),
    default="user-type=subscriber",
    show_default=True,
    help="Calls with this header have routes of their own.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the files to this folder. Default: print what `kubectl apply -f -` takes.",
)
def istio(output: Path | None, **values: Any) -> None:  # noqa: ANN401
    """Write Istio's manifests: the filter, the providers, telemetry and metrics."""
    try:
        from extproc.config.istio import applied, render  # noqa: PLC0415 - only this needs its libraries
    except ImportError as error:
        raise click.ClickException(f"{error}; in the checkout: pip install '.[config]'") from None
    asked = options_of(**values)
    if output is None:
        click.echo(applied(asked), nl=False)
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in render(asked).items():
            (output / name).write_text(text, encoding="utf-8")
            click.echo(str(output / name))
    except OSError as error:
        raise click.ClickException(str(error)) from None


def options_of(  # noqa: PLR0913 - the options of the command
    *,
    hosts: tuple[read.Host, ...],
    namespace: str,
    workload_selector: tuple[tuple[str, str], ...],
    istio_version: Any,  # noqa: ANN401
    server_address: read.Service | read.Socket,
    gateway: read.Gateway | None,
    gateway_ports: tuple[int, ...],
    header: tuple[str, str],
) -> read.IstioOptions:
    """Return what the options of the command say.

    Raises:
        click.UsageError: two of them do not go together.
    """
    names = [host.name for host in hosts]
    if len(set(names)) < len(names):
        raise click.UsageError("--host: each host once")
    return read.IstioOptions(
        hosts=hosts,
        namespace=namespace,
        workload_selector=workload_selector,
        istio_version=istio_version,
        server=server_address,
        gateway=gateway,
        gateway_ports=gateway_ports,
        header_name=header[0],
        header_value=header[1],
    )
