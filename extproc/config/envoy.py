"""Our parts of Envoy's configuration, as messages of Envoy's own API: a field that does not exist cannot be written."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from typing import Any, TypeAlias

from betterproto2 import Casing, Message
from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog, AccessLogFilter, ExtensionFilter
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutationRules
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    Http2ProtocolOptions,
    Pipe,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.access_loggers.stats.v3 import Config as Stats
from envoy_data_plane.envoy.extensions.access_loggers.stats.v3 import ConfigCounter, ConfigStat, ConfigTag
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    ExtProcOverrides,
    ExtProcPerRoute,
    HeaderForwardingRules,
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher, StringMatcher
from envoy_data_plane.envoy.type.metadata.v3 import (
    MetadataKey,
    MetadataKeyPathSegment,
    MetadataKind,
    MetadataKindRequest,
)
from envoy_data_plane.envoy.type.tracing.v3 import CustomTag, CustomTagMetadata
from envoy_data_plane.envoy.type.v3 import Scope
from envoy_data_plane.google.protobuf import Any as AnyMessage

from extproc.config.options import Socket
from extproc.wanted import WORKLOAD, wanted_headers

Mapped: TypeAlias = dict[str, Any]
"""A message as JSON, with the field names of its `.proto`."""

FILTER = "asm-llm-proxy"
"""The filter's name, which is also the key of its per-route configuration."""

NAMESPACE = "asm.llmproxy"
"""Of the dynamic metadata."""

PATH = "x-llmproxy-path"
"""gRPC initial metadata that says which path a route rewrites to."""

SPAN_TAGS: Mapping[str, str] = {
    "gen_ai.request.model": "request_model",
    "gen_ai.response.model": "response_model",
    "gen_ai.usage.input_tokens": "request_prompt_tokens",
    "gen_ai.usage.output_tokens": "request_completion_tokens",
}
"""Names of OpenTelemetry (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/) by keys of the metadata."""

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_PREFIX = "istiocustom"
_COUNTERS = {
    "asm_llm_proxy_prompt_tokens": "request_prompt_tokens",
    "asm_llm_proxy_completion_tokens": "request_completion_tokens",
}


class Bodies(Enum):
    """How bodies come to us, and still pass in any size with their Content-Length."""

    ASKED_FOR = "asked for"
    """The server asks for them, message by message. Any Envoy."""
    STREAMED = "streamed"
    """From the start, with `allow_content_length_header`. Envoy 1.38 and later."""


class StatsPrefix(Enum):
    """Where the stats access logger takes its prefix."""

    FIELD = "stat_prefix"
    """Envoy 1.37 and later; deprecated in 1.40."""
    SCOPE = "stats_scope"
    """Envoy 1.39 and later."""


def mapped(message: Message) -> Mapped:
    """Return a message as JSON; fields with default values are left out."""
    return message.to_dict(casing=Casing.SNAKE)


def any_of(message: Message) -> Mapped:
    """Return a message as JSON with its `@type`."""
    return mapped(AnyMessage.pack(message))


def external_processor(cluster: str, attributes: tuple[str, ...], bodies: Bodies) -> Mapped:
    """Return the configuration of the filter."""
    send = ProcessingModeHeaderSendMode.SEND
    mode = ProcessingMode(
        request_header_mode=send, request_trailer_mode=send, response_header_mode=send, response_trailer_mode=send
    )
    if bodies is Bodies.STREAMED:
        streamed = ProcessingModeBodySendMode.STREAMED
        mode = replace(mode, request_body_mode=streamed, response_body_mode=streamed)
    processor = ExternalProcessor(
        grpc_service=GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=cluster)),
        failure_mode_allow=True,
        message_timeout=timedelta(seconds=2),
        processing_mode=mode,
        allow_mode_override=True,
        allow_content_length_header=bodies is Bodies.STREAMED,
        forward_rules=HeaderForwardingRules(
            allowed_headers=ListStringMatcher(patterns=[StringMatcher(exact=name) for name in sorted(wanted_headers())])
        ),
        mutation_rules=HeaderMutationRules(disallow_all=True),
        disable_immediate_response=True,
        metadata_options=MetadataOptions(receiving_namespaces=MetadataOptionsMetadataNamespaces(untyped=[NAMESPACE])),
        request_attributes=list(attributes),
    )
    # The body modes in words, also where they are the default.
    return {**any_of(processor), "processing_mode": mode.to_dict(casing=Casing.SNAKE, include_default_values=True)}


def socket_cluster(server: Socket) -> Mapped:
    """Return a cluster for a server beside the proxy. gRPC is HTTP/2."""
    address = Address(pipe=Pipe(path=server.path))
    endpoint = LocalityLbEndpoints(lb_endpoints=[LbEndpoint(endpoint=Endpoint(address=address))])
    options = HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
    )
    cluster = Cluster(
        name=server.cluster,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=1),
        load_assignment=ClusterLoadAssignment(cluster_name=server.cluster, endpoints=[endpoint]),
    )
    return {**mapped(cluster), "typed_extension_protocol_options": {_HTTP_OPTIONS: any_of(options)}}


def streamed_bodies() -> Mapped:
    """Return what to merge into `external_processor(..., Bodies.ASKED_FOR)` to make it `Bodies.STREAMED`."""
    streamed = ProcessingModeBodySendMode.STREAMED
    return any_of(
        ExternalProcessor(
            processing_mode=ProcessingMode(request_body_mode=streamed, response_body_mode=streamed),
            allow_content_length_header=True,
        )
    )


def per_route(path: str | None = None) -> Mapped:
    """Return what switches the filter on for a virtual host or a route; `path` is what the route rewrites to."""
    metadata = [HeaderValue(key=PATH, value=path)] if path else []
    return any_of(ExtProcPerRoute(overrides=ExtProcOverrides(grpc_initial_metadata=metadata)))


def token_counters(prefix: StatsPrefix, workload: tuple[str, str] = WORKLOAD) -> list[Mapped]:
    """Return access loggers that count tokens in Envoy's own stats.

    Names begin with `istiocustom`, which Istio's proxy lets through its filter of stats and leaves out of what
    Prometheus sees. `workload` are the attributes that name the source workload and its namespace.
    """
    source, namespace = workload
    tags = {
        "llmproxy_source_workload": f"%CEL({source})%",
        "llmproxy_source_workload_namespace": f"%CEL({namespace})%",
        "llmproxy_destination_service": "%REQ(:AUTHORITY)%",
        "llmproxy_model": f"%DYNAMIC_METADATA({NAMESPACE}:model_tag)%",
    }
    with warnings.catch_warnings():
        # `stat_prefix` is deprecated; the versions that get it have nothing else.
        warnings.simplefilter("ignore", DeprecationWarning)
        return [
            mapped(
                _token_counter(
                    name, key, prefix, [ConfigTag(name=tag, value_format=value) for tag, value in tags.items()]
                )
            )
            for name, key in _COUNTERS.items()
        ]


def _token_counter(name: str, key: str, prefix: StatsPrefix, tags: list[ConfigTag]) -> AccessLog:
    counter = ConfigCounter(
        stat=ConfigStat(name=name, tags=tags), value_format=f"%DYNAMIC_METADATA({NAMESPACE}:{key})%"
    )
    stats = (
        Stats(stat_prefix=_PREFIX, counters=[counter])
        if prefix is StatsPrefix.FIELD
        else Stats(stats_scope=Scope(prefix=_PREFIX), counters=[counter])
    )
    return AccessLog(
        name="envoy.access_loggers.stats",
        filter=AccessLogFilter(extension_filter=_has(key)),
        typed_config=AnyMessage.pack(stats),
    )


def _has(key: str) -> ExtensionFilter:
    """Return a filter for calls with this key in their metadata."""
    return ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel",
        typed_config=AnyMessage.pack(
            ExpressionFilter(expression=f"'{key}' in metadata.filter_metadata['{NAMESPACE}']")
        ),
    )


def span_tags() -> list[Mapped]:
    """Return custom tags of spans that Envoy fills from the metadata when a call has ended."""
    return [
        mapped(
            CustomTag(
                tag=tag,
                metadata=CustomTagMetadata(
                    kind=MetadataKind(request=MetadataKindRequest()),
                    metadata_key=MetadataKey(key=NAMESPACE, path=[MetadataKeyPathSegment(key=key)]),
                ),
            )
        )
        for tag, key in SPAN_TAGS.items()
    ]
