"""The filter itself, for sidecars and for a gateway."""

from __future__ import annotations

from typing import Any

from extproc.config.document import Noted, noted
from extproc.config.envoy import (
    FILTER,
    Bodies,
    Mapped,
    external_processor,
    per_route,
    socket_cluster,
    streamed_bodies,
)
from extproc.config.istio.manifest import GATEWAY, File, Manifest, Place, envoy_filter, listener, outbound, patch
from extproc.config.istio.providers import short_routes
from extproc.config.options import IstioOptions, Service, Socket
from extproc.wanted import CALLER, WORKLOAD

# The proxies whose Envoy has `allow_content_length_header`.
_STREAMS = (1, 30)
_STREAMS_VERSIONS = r"^1\.[3-9][0-9].*"


def sidecar(options: IstioOptions) -> File:
    """Return the filter for sidecars."""
    where = "the sidecars of the workloads selected below"
    if not options.workload_selector:
        where = f"all sidecars of the namespace `{options.namespace}`"
        where += " (if that is Istio's root namespace: of the whole mesh)"
    place = outbound(options)
    patches = [*_insert(place, options, WORKLOAD), *_switch_on(place, options)]
    return File(
        "sidecar.yaml",
        f"Shows the calls that go out through {where} to extproc, and takes back metadata.\n"
        "\n"
        "Only calls to the hosts named here: the filter is off (`disabled`) and switched on per virtual host. Nothing "
        "else on the port is shown to extproc.\n"
        "\n"
        "Change hosts, namespace, selector, server or Istio version by writing the file anew: `extproc config istio`.",
        (envoy_filter(FILTER, options.namespace, options.workload_selector, patches),),
    )


def gateway(options: IstioOptions) -> File | None:
    """Return the filter for the gateway; `None` without a gateway."""
    if options.gateway is None:
        return None
    patches = [*_insert(GATEWAY, options, (*CALLER, *WORKLOAD)), *_switch_on(GATEWAY, options)]
    manifest = envoy_filter(f"{FILTER}-gateway", options.gateway.namespace, options.gateway.selector, patches)
    if isinstance(options.server, Service):
        namespace = options.server.host.split(".")[1]
        manifest["metadata"]["annotations"] = Noted(
            "Gateways that get only the clusters they refer to (PILOT_FILTER_GATEWAY_CLUSTER_CONFIG) need to be told "
            "of this one. Since Istio 1.26; ignored before.",
            {"envoyfilter.istio.io/referenced-services": f"{namespace}/{options.server.host}"},
        )
    return File(
        "gateway.yaml",
        "The same as sidecar.yaml, for a gateway that calls to models go through.\n"
        "\n"
        "The caller is the workload behind the gateway's client where Istio knows it: from Istio 1.24 on, for callers "
        "with a sidecar. It is what the caller's own proxy says of itself, no proof. For others it is the gateway.\n"
        "\n"
        "A gateway needs a Gateway and a VirtualService for the hosts; where it is to use the routes of "
        "providers.yaml, add its name to `gateways` there, beside `mesh`.",
        (manifest,),
    )


def _insert(place: Place, options: IstioOptions, attributes: tuple[str, ...]) -> list[Manifest]:
    """Return patches that put the filter before the router."""
    version = options.istio_version
    bodies = Bodies.STREAMED if version and version >= _STREAMS else Bodies.ASKED_FOR
    config = _explained(external_processor(options.server.cluster, attributes, bodies), bodies)
    if isinstance(options.server, Service):
        config = noted(
            config,
            {
                "grpc_service": "The mesh's own cluster for the Service of extproc: found, balanced and encrypted as "
                "any other. The Service's port must be `appProtocol: grpc` (or have a name that begins with grpc-)."
            },
        )
    value = noted(
        {"name": FILTER, "disabled": True, "typed_config": config}, {"disabled": "Off, until a virtual host says on."}
    )
    patches: list[Any] = [
        patch("HTTP_FILTER", listener(place, port, "envoy.filters.http.router"), "INSERT_BEFORE", value)
        for port in place.ports
    ]
    if version is None:
        merge = {"name": FILTER, "typed_config": streamed_bodies()}
        merged: list[Any] = [
            patch("HTTP_FILTER", listener(place, port, FILTER, _STREAMS_VERSIONS), "MERGE", merge)
            for port in place.ports
        ]
        merged[0] = Noted(
            "Istio 1.30 and later: bodies from the start. They keep their Content-Length by a field that Envoy has "
            "since 1.38.",
            merged[0],
        )
        patches += merged
    if isinstance(options.server, Socket):
        cluster = patch("CLUSTER", {"context": place.context}, "ADD", socket_cluster(options.server))
        patches.insert(0, Noted("The server beside the proxy, over a Unix socket that both see.", cluster))
    return patches


def _explained(config: Mapped, bodies: Bodies) -> Mapped:
    modes = {
        Bodies.ASKED_FOR: "Headers first. extproc asks for a body (`mode_override`) when the call is one to a model; "
        "that way bodies of any size pass and keep their Content-Length, on every version of Envoy.",
        Bodies.STREAMED: "Everything, as it passes. extproc stops what it has no use for (`mode_override`).",
    }
    attributes = "Who calls: this workload and its namespace, as the proxy knows them."
    if CALLER[0] in config["request_attributes"]:
        attributes = "Who calls: the workload of the peer, if Istio knows it; else this gateway."
    notes = {
        "failure_mode_allow": "Calls are never refused because of us: down, slow or broken, they go on unmeasured.",
        "processing_mode": modes[bodies],
        "request_attributes": attributes,
        "message_timeout": "For each answer of extproc. The default of 200 ms would give up on a busy machine.",
        "forward_rules": "What extproc looks at. Other headers stay in the proxy, credentials among them.",
        "mutation_rules": "extproc reads; it may change nothing.",
    }
    if bodies is Bodies.STREAMED:
        notes["allow_content_length_header"] = "Since Envoy 1.38: streamed bodies keep their Content-Length."
    return noted(config, notes)


def _switch_on(place: Place, options: IstioOptions) -> list[Manifest]:
    """Return patches that switch the filter on for the hosts, and tell it of paths that routes rewrite."""
    hosts: list[Any] = [
        patch(
            "VIRTUAL_HOST",
            {"context": place.context, "routeConfiguration": {"vhost": {"name": vhost}}},
            "MERGE",
            {"typed_per_filter_config": {FILTER: per_route()}},
        )
        for host in options.hosts
        for vhost in place.vhosts(host, options)
    ]
    hosts[0] = Noted("On, for each host. Istio names virtual hosts host:port.", hosts[0])
    paths: list[Any] = [
        patch(
            "HTTP_ROUTE",
            {"context": place.context, "routeConfiguration": {"vhost": {"name": vhost, "route": {"name": route}}}},
            "MERGE",
            {"typed_per_filter_config": {FILTER: per_route(host.path)}},
        )
        for host in options.hosts
        if host.path
        for route in short_routes(options)
        for vhost in place.vhosts(host, options)
    ]
    if paths:
        paths[0] = Noted(
            "Routes rewrite the path behind the filter, so these tell extproc what it will be. `route.name` is the "
            "name in the VirtualService (providers.yaml).",
            paths[0],
        )
    return hosts + paths
