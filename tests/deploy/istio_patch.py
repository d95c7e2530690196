"""EnvoyFilter patches, applied as istiod applies them.

The rules are those of pilot/pkg/networking/core/envoyfilter/listener_patch.go and rc_patch.go
(https://github.com/istio/istio), as far as our manifests need them; what is not written here is an error.
Configurations are as JSON, with the field names of the `.proto`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Proxy:
    """The proxy that is configured."""

    version: str
    """Of Istio."""
    context: str
    """SIDECAR_OUTBOUND or GATEWAY."""
    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    root_namespace: str = "istio-system"


def apply(
    manifests: Iterable[Json], proxy: Proxy, listeners: list[Json], routes: list[Json], clusters: list[Json]
) -> None:
    """Patch listeners, route configurations and clusters in place."""
    patches = list(_patches(manifests, proxy))
    for patch in patches:
        if patch["applyTo"] == "CLUSTER":
            assert patch["patch"]["operation"] == "ADD"
            assert patch["match"].keys() == {"context"}
            clusters.append(copy.deepcopy(patch["patch"]["value"]))
    for listener in listeners:
        for chain in listener["filter_chains"]:
            for network_filter in chain["filters"]:
                _patch_filter(network_filter, listener, patches)
    for route_configuration in routes:
        for vhost in route_configuration["virtual_hosts"]:
            _patch_vhost(vhost, patches)


def merge(into: Json, patch: Json) -> None:
    """Merge as protobuf does: messages field by field, lists one after the other, of maps whole entries."""
    for key, value in patch.items():
        if key == "@type":
            assert into.get(key, value) == value
        if key == "typed_per_filter_config":
            into[key] = {**into.get(key, {}), **copy.deepcopy(value)}
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif isinstance(value, list):
            into[key] = [*into.get(key, []), *copy.deepcopy(value)]
        else:
            into[key] = copy.deepcopy(value)


def _patches(manifests: Iterable[Json], proxy: Proxy) -> Iterator[Json]:
    """Return the patches that are for this proxy, those of the root namespace first."""
    ours = [manifest for manifest in manifests if manifest["kind"] == "EnvoyFilter"]
    for manifest in sorted(ours, key=lambda found: bool(found["metadata"]["namespace"] != proxy.root_namespace)):
        _known(manifest["spec"], "workloadSelector", "configPatches")
        selector = manifest["spec"].get("workloadSelector", {"labels": {}})["labels"]
        if manifest["metadata"]["namespace"] not in (proxy.root_namespace, proxy.namespace):
            continue
        if not selector.items() <= proxy.labels.items():
            continue
        for patch in manifest["spec"]["configPatches"]:
            match = patch["match"]
            _known(match, "context", "proxy", "listener", "routeConfiguration")
            _known(match.get("proxy", {}), "proxyVersion")
            versions = match.get("proxy", {}).get("proxyVersion", "")
            if match["context"] == proxy.context and re.search(versions, proxy.version):
                yield patch


def _patch_filter(network_filter: Json, listener: Json, patches: list[Json]) -> None:
    here = [patch for patch in patches if _matches_filter(patch["match"].get("listener"), listener, network_filter)]
    config = network_filter["typed_config"]
    for patch in here:
        if patch["applyTo"] == "NETWORK_FILTER":
            assert patch["patch"]["operation"] == "MERGE"
            merge(network_filter, patch["patch"]["value"])
    # What is inserted can be merged into, by patches before or behind.
    for operation in ("INSERT_BEFORE", "MERGE"):
        for patch in here:
            if patch["applyTo"] == "HTTP_FILTER" and patch["patch"]["operation"] == operation:
                name = patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"]
                _patch_http_filter(config["http_filters"], name, operation, patch["patch"]["value"])
    for patch in here:
        assert patch["applyTo"] in ("NETWORK_FILTER", "HTTP_FILTER")


def _patch_http_filter(filters: list[Json], name: str, operation: str, value: Json) -> None:
    for index, http_filter in enumerate(filters):
        if http_filter["name"] == name:
            if operation == "INSERT_BEFORE":
                filters.insert(index, copy.deepcopy(value))
            else:
                merge(http_filter, value)
            return


def _matches_filter(match: Json | None, listener: Json, network_filter: Json) -> bool:
    if match is None:
        return False
    _known(match, "portNumber", "filterChain")
    _known(match["filterChain"], "filter")
    _known(match["filterChain"]["filter"], "name", "subFilter")
    port = listener["address"]["socket_address"]["port_value"]
    name = match["filterChain"]["filter"]["name"]
    return bool(match.get("portNumber", port) == port and name == network_filter["name"])


def _patch_vhost(vhost: Json, patches: list[Json]) -> None:
    for patch in patches:
        match = patch["match"].get("routeConfiguration")
        if match is None:
            continue
        _known(match, "vhost")
        _known(match["vhost"], "name", "route")
        if match["vhost"]["name"] != vhost["name"]:
            continue
        assert patch["patch"]["operation"] == "MERGE"
        if patch["applyTo"] == "VIRTUAL_HOST":
            merge(vhost, patch["patch"]["value"])
        else:
            assert patch["applyTo"] == "HTTP_ROUTE"
            for route in vhost["routes"]:
                if route.get("name") == match["vhost"]["route"]["name"]:
                    merge(route, patch["patch"]["value"])


def _known(found: Mapping[str, Any], *names: str) -> None:
    unknown = found.keys() - set(names)
    assert not unknown, f"no rule for {unknown}"
