"""A proxy's configuration as istiod makes it for our manifests: listeners, routes and clusters with Istio's names."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import yaml

from extproc.config.istio import render
from extproc.config.options import IstioOptions, Service
from extproc.demo.processes import Address
from tests.deploy.istio_patch import Json, Proxy, apply

HCM = "envoy.filters.network.http_connection_manager"
_TYPE = "type.googleapis.com/envoy"
_BUFFER = 32768
"""Bytes. The smallest that Istio sets: a body that were held would be refused with 413."""

OTHER = "reviews.default.svc.cluster.local"


@cache
def files(options: IstioOptions) -> Mapping[str, str]:
    """Return the rendered files; not to be changed."""
    return render(options)


@cache
def manifests(options: IstioOptions) -> list[Json]:
    """Return all manifests of the rendered files; not to be changed."""
    texts = files(options)
    names = [name for name in texts if name not in ("kustomization.yaml", "mesh-config.yaml")]
    return [found for name in names for found in yaml.safe_load_all(texts[name])]


def configuration(options: IstioOptions, proxy: Proxy, addresses: Mapping[str, Address]) -> Json:
    """Return what Envoy is started with.

    `addresses` has `provider`, `server` and `zipkin`: where what the mesh finds by name is in the test.
    """
    mesh_config, given = files(options)["mesh-config.yaml"], manifests(options)
    port = 80
    listener = _listener("0.0.0.0_8080" if proxy.context == "GATEWAY" else "0.0.0.0_80", mesh_config)
    listener["address"]["socket_address"]["port_value"] = 8080 if proxy.context == "GATEWAY" else port
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    hosts = [found for found in given if found["kind"] == "VirtualService"]
    vhosts = [_vhost(host["spec"]["hosts"][0], port, _routes(host, port)) for host in hosts]
    passthrough = {"name": "allow_any", "match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": f"outbound|{port}||{OTHER}", "timeout": "0s"}}
    vhosts += [_vhost(OTHER, port, [route]), {"name": "allow_any", "domains": ["*"], "routes": [passthrough]}]
    routes = {"name": "http.8080" if proxy.context == "GATEWAY" else str(port), "virtual_hosts": vhosts}
    gateway = proxy.context == "GATEWAY"
    workload = "istio-ingressgateway" if gateway else "sleep"
    names = [host["spec"]["hosts"][0] for host in hosts] + [OTHER]
    clusters = [_cluster(f"outbound|{port}||{name}", addresses["provider"]) for name in names]
    clusters += [
        _cluster("PassthroughCluster", addresses["provider"]),
        _cluster("zipkin", addresses["zipkin"]),
    ]
    if isinstance(options.server, Service):
        clusters.append(_cluster(options.server.cluster, addresses["server"], grpc=True))
    apply(given, proxy, [listener], [routes], clusters)
    _telemetry_tags(manager, given)
    manager["route_config"] = routes
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    return {
        "node": {
            "id": f"{'router' if gateway else 'sidecar'}~10.1.1.1~{workload}-7f9c6d.{proxy.namespace}~cluster.local",
            "cluster": f"{workload}.{proxy.namespace}",
            "metadata": {
                "WORKLOAD_NAME": workload,
                "NAMESPACE": proxy.namespace,
                "ISTIO_VERSION": proxy.version,
            },
        },
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        # Spans at once. Of Istio's bootstrap: only some stats, those that begin with `istio` among them.
        "layered_runtime": {
            "layers": [{"name": "static", "static_layer": {"tracing.zipkin.min_flush_spans": 1}}],
        },
        "stats_config": {
            "stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "istio"}, {"prefix": "server"}]}}
        },
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


def _listener(name: str, mesh_config: str) -> Json:
    filters = [
        _filter("envoy.filters.http.grpc_stats", "extensions.filters.http.grpc_stats.v3.FilterConfig"),
        _filter("envoy.filters.http.fault", "extensions.filters.http.fault.v3.HTTPFault"),
        _filter("envoy.filters.http.cors", "extensions.filters.http.cors.v3.Cors"),
        _filter("envoy.filters.http.router", "extensions.filters.http.router.v3.Router"),
    ]
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": f"outbound_{name}",
        "use_remote_address": False,
        "normalize_path": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": [_access_log(mesh_config)],
        "http_filters": filters,
        "tracing": {
            "random_sampling": {"value": 100.0},
            "provider": {
                "name": "envoy.tracers.zipkin",
                "typed_config": {
                    "@type": f"{_TYPE}.config.trace.v3.ZipkinConfig",
                    "collector_cluster": "zipkin",
                    "collector_endpoint": "/api/v2/spans",
                    "collector_endpoint_version": "HTTP_JSON",
                },
            },
        },
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 0}},
        "per_connection_buffer_limit_bytes": _BUFFER,
        "filter_chains": [{"filters": [{"name": HCM, "typed_config": manager}]}],
    }


def _access_log(mesh_config: str) -> Json:
    """Return what istiod makes of our provider; it adds the formatter for REQ_WITHOUT_QUERY."""
    (provider,) = yaml.safe_load(mesh_config)["meshConfig"]["extensionProviders"]
    log = provider["envoyFileAccessLog"]
    formatter = _filter(
        "envoy.formatter.req_without_query", "extensions.formatter.req_without_query.v3.ReqWithoutQuery"
    )
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log["path"],
            "log_format": {"json_format": log["logFormat"]["labels"], "formatters": [formatter]},
        },
    }


def _telemetry_tags(manager: Json, given: Iterable[Json]) -> None:
    """Add the custom tags of Telemetry; istiod makes a `value` of a `formatter`."""
    tags = [
        {"tag": tag, "value": custom["formatter"]["value"]}
        for manifest in given
        if manifest["kind"] == "Telemetry"
        for tracing in manifest["spec"].get("tracing", [])
        for tag, custom in tracing["customTags"].items()
    ]
    if tags:
        manager["tracing"]["custom_tags"] = [*manager["tracing"].get("custom_tags", []), *tags]


def _routes(virtual_service: Json, port: int) -> list[Json]:
    found = []
    for http in virtual_service["spec"]["http"]:
        (destination,) = http["route"]
        cluster = f"outbound|{destination['destination']['port']['number']}||{destination['destination']['host']}"
        assert destination["destination"]["port"]["number"] == port
        action: Json = {"cluster": cluster, "timeout": "0s", "max_grpc_timeout": "0s"}
        if "rewrite" in http:
            action["prefix_rewrite"] = http["rewrite"]["uri"]
        for match in http.get("match", [{}]):
            path = {"path": match["uri"]["exact"]} if "uri" in match else {"prefix": "/"}
            headers = [
                {"name": name, "string_match": {"exact": value["exact"]}}
                for name, value in match.get("headers", {}).items()
            ]
            found.append({"name": http["name"], "match": {**path, "headers": headers}, "route": copy.deepcopy(action)})
    return found


def _vhost(host: str, port: int, routes: list[Json]) -> Json:
    return {"name": f"{host}:{port}", "domains": [host, f"{host}:{port}"], "routes": routes}


def _cluster(name: str, address: Address, *, grpc: bool = False) -> Json:
    host, port = address
    protocol: Json = {"http2_protocol_options": {}} if grpc else {"http_protocol_options": {}}
    endpoint = {"address": {"socket_address": {"address": host, "port_value": port}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "per_connection_buffer_limit_bytes": _BUFFER,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": protocol,
            }
        },
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }


def _filter(name: str, message: str) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{_TYPE}.{message}"}}
