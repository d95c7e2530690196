"""The providers as hosts of the mesh: known to it, reached by TLS, with routes."""

from __future__ import annotations

from typing import Any

from extproc.config.document import Noted, noted
from extproc.config.istio.manifest import File, Manifest
from extproc.config.options import Host, IstioOptions

_API = "networking.istio.io/v1"


def providers(options: IstioOptions) -> File | None:
    """Return what makes hosts outside of the mesh a part of it, and routes; `None` if there is no need for any."""
    found: list[Manifest] = []
    for host in options.hosts:
        if not host.in_mesh:
            found += [_service_entry(host, options), _destination_rule(host, options)]
        if host.path or not host.in_mesh:
            found.append(_virtual_service(host, options))
    if not found:
        return None
    return File(
        "providers.yaml",
        "The providers, as hosts of the mesh: applications call them by plain HTTP, so that the proxy can read along, "
        "and the proxy adds TLS. (An application that speaks https itself cannot be read by any proxy.)\n"
        "\n"
        "    curl http://dashscope.aliyuncs.com -H 'Content-Type: application/json' -d '{\"messages\": [...]}'",
        tuple(found),
    )


def short_routes(options: IstioOptions) -> tuple[str, str]:
    """Return the names of the routes for calls without a path: with the header, and without."""
    return f"llm-{options.header_value}-short", "llm-short"


def _metadata(host: Host, options: IstioOptions) -> Manifest:
    return {"name": host.name.replace(".", "-"), "namespace": options.namespace}


def _service_entry(host: Host, options: IstioOptions) -> Manifest:
    port = {"number": host.port, "name": "http", "protocol": "HTTP", "targetPort": 443}
    spec = {"hosts": [host.name], "location": "MESH_EXTERNAL", "resolution": "DNS", "ports": [port]}
    return {
        "apiVersion": _API,
        "kind": "ServiceEntry",
        "metadata": _metadata(host, options),
        "spec": noted(spec, {"ports": f"Called on {host.port}, connected to on 443."}),
    }


def _destination_rule(host: Host, options: IstioOptions) -> Manifest:
    tls = Noted(
        "TLS from the proxy on. Without caCertificates, the certificate is checked against those of the system.",
        {"mode": "SIMPLE", "sni": host.name},
    )
    return {
        "apiVersion": _API,
        "kind": "DestinationRule",
        "metadata": _metadata(host, options),
        "spec": {"host": host.name, "trafficPolicy": {"tls": tls}},
    }


def _virtual_service(host: Host, options: IstioOptions) -> Manifest:
    header = {options.header_name: {"exact": options.header_value}}
    destination = [{"destination": {"host": host.name, "port": {"number": host.port}}}]
    routes: list[Any] = []
    if host.path:
        short = {"uri": {"exact": "/"}}
        matches = ({**short, "headers": header}, short)
        routes = [
            {"name": name, "match": [match], "rewrite": {"uri": host.path}, "route": destination}
            for name, match in zip(short_routes(options), matches, strict=True)
        ]
        routes[0] = Noted(
            "Applications may leave out the path. A path that is changed here must be changed in the EnvoyFilters too.",
            routes[0],
        )
    routes += [
        Noted(
            f"Callers with `{options.header_name}: {options.header_value}` have a route of their own, for whatever "
            "they get that others do not: another destination, another key (`headers.request.set`), more time. The "
            "access log names the route. The model is in the call itself; Istio cannot set it.",
            {"name": f"llm-{options.header_value}", "match": [{"headers": header}], "route": destination},
        ),
        {"name": "llm-default", "route": destination},
    ]
    return {
        "apiVersion": _API,
        "kind": "VirtualService",
        "metadata": _metadata(host, options),
        "spec": {"hosts": [host.name], "gateways": ["mesh"], "http": routes},
    }
