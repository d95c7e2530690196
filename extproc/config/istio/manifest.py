"""What the manifests are made of: files, EnvoyFilters, and the places that their patches go to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from extproc.config.document import comment, text
from extproc.config.options import Host, IstioOptions, Labels

Manifest: TypeAlias = dict[str, Any]

HCM = "envoy.filters.network.http_connection_manager"
HCM_TYPE = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


@dataclass(frozen=True)
class File:
    """A file of manifests."""

    name: str
    head: str
    """The comment at its top."""
    manifests: tuple[Manifest, ...]
    applied: bool = True
    """Listed in kustomization.yaml."""

    @property
    def text(self) -> str:
        """The file as it is written."""
        return comment(self.head) + "\n" + "---\n".join(map(text, self.manifests))


@dataclass(frozen=True)
class Place:
    """Where patches go: the outbound side of sidecars, or a gateway."""

    context: str
    ports: tuple[int | None, ...]
    """Of the listeners; `None` for all."""

    def vhosts(self, host: Host, options: IstioOptions) -> tuple[str, ...]:
        """Return the names that Istio gives the virtual hosts of a host."""
        ports = options.gateway_ports if self is GATEWAY else (host.port,)
        return tuple(f"{host.name}:{port}" for port in ports)


GATEWAY = Place("GATEWAY", (None,))


def outbound(options: IstioOptions) -> Place:
    """Return the listeners of sidecars that calls to the hosts go through."""
    return Place("SIDECAR_OUTBOUND", tuple(sorted({host.port for host in options.hosts})))


def envoy_filter(name: str, namespace: str, selector: Labels, patches: list[Manifest]) -> Manifest:
    """Return an EnvoyFilter; without a selector, for all workloads of the namespace."""
    spec: Manifest = {"workloadSelector": {"labels": dict(selector)}} if selector else {}
    spec["configPatches"] = patches
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def patch(apply_to: str, match: Mapping[str, Any], operation: str, value: Mapping[str, Any]) -> Manifest:
    """Return a patch."""
    return {"applyTo": apply_to, "match": match, "patch": {"operation": operation, "value": value}}


def merged_into_manager(place: Place, config: Mapping[str, Any], versions: str | None = None) -> list[Manifest]:
    """Return patches that merge fields into the HTTP connection managers of a place."""
    value = {"name": HCM, "typed_config": {"@type": HCM_TYPE, **config}}
    return [patch("NETWORK_FILTER", listener(place, port, None, versions), "MERGE", value) for port in place.ports]


def listener(place: Place, port: int | None, http_filter: str | None, versions: str | None = None) -> Manifest:
    """Return a match for an HTTP connection manager, or for one of its filters.

    `versions` is a regular expression for the versions of Istio's proxy.
    """
    match: Manifest = {"context": place.context}
    if versions:
        match["proxy"] = {"proxyVersion": versions}
    network_filter: Manifest = {"name": HCM}
    if http_filter:
        network_filter["subFilter"] = {"name": http_filter}
    match["listener"] = {"portNumber": port} if port else {}
    match["listener"]["filterChain"] = {"filter": network_filter}
    return match


def telemetry_resource(name: str, namespace: str, selector: Labels, spec: Manifest) -> Manifest:
    """Return a Telemetry; without a selector, for all workloads of the namespace."""
    return {
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": dict(selector)}, **spec} if selector else spec,
    }
