"""One ext_proc stream: a message in, a reply out.

Envoy opens a stream for each HTTP exchange. No transport is known here: messages and replies are bytes. This is the
only place that catches every exception: a fault of ours costs a count, never the exchange.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Collection, Mapping
from time import monotonic

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Value

from extproc.core.exchange import REQUEST_HEADERS, Exchange
from extproc.core.facts import Gap
from extproc.formats import Find
from extproc.labels import UNKNOWN, BoundedLabel, host
from extproc.metadata import Publication, metadata
from extproc.metrics import Labels, Metrics
from extproc.settings import Settings
from extproc.wire.ext_proc_pb2 import HeaderMap, ProcessingRequest
from extproc.wire.replies import IGNORE, UNCHANGED, WATCH, with_metadata

_log = logging.getLogger(__name__)

_parse = ProcessingRequest.FromString

# Envoy's key for attributes, whatever name the filter was given.
_ATTRIBUTES = "envoy.filters.http.ext_proc"

_BEGINNING = frozenset((":method", ":path", ":authority", *REQUEST_HEADERS))

# gRPC initial metadata that says which path the route will rewrite to: routes rewrite behind this filter.
_PATH = "x-llmproxy-path"

# Who calls: at a gateway the peer that Istio knows, else the proxy itself; else gRPC initial metadata.
_WORKLOAD = (
    ("filter_state.downstream_peer.workload", "xds.node.metadata.WORKLOAD_NAME"),
    "x-llmproxy-source-workload",
)
_WORKLOAD_NAMESPACE = (
    ("filter_state.downstream_peer.namespace", "xds.node.metadata.NAMESPACE"),
    "x-llmproxy-source-workload-namespace",
)


class Observer:
    """What all streams of a process share."""

    def __init__(self, settings: Settings, metrics: Metrics, find: Find) -> None:
        def label(name: str, pinned: tuple[str, ...] = ()) -> BoundedLabel:
            return BoundedLabel(name, settings.label_limit, pinned, metrics.overflow)

        self.metrics = metrics
        self.find = find
        self.limits = settings.limits
        self.metadata_namespace = settings.namespace
        self.model = label("model", settings.pinned_models)
        self.response_model = label("response_model", settings.pinned_models)
        self.destination = label("destination_service", settings.pinned_hosts)
        self.workload = label("source_workload")
        self.workload_namespace = label("source_workload_namespace")


class Stream:
    """Follows one stream: `receive` for each message, `close` when it ends, however it does."""

    __slots__ = (
        "_exchange",
        "_faulty",
        "_initial_metadata",
        "_labels",
        "_model",
        "_observer",
        "_publication",
        "_published",
        "_tag",
    )

    def __init__(self, observer: Observer, initial_metadata: Mapping[str, str]) -> None:
        self._observer = observer
        self._initial_metadata = initial_metadata
        self._exchange: Exchange | None = None
        self._faulty = False
        self._model: str | None = None
        self._tag = UNKNOWN
        self._publication = Publication()
        self._published = 0  # the revision of the facts that Envoy has
        self._labels = (UNKNOWN, UNKNOWN, UNKNOWN)  # workload, its namespace, destination
        observer.metrics.streams_open.inc()

    def receive(self, data: bytes) -> bytes | None:
        """Return the reply to a message; `None` if Envoy wants none. Never raises."""
        now = monotonic()
        phase, reply, wanted = UNKNOWN, b"", True
        try:
            message = _parse(data)
            phase = message.WhichOneof("request") or UNKNOWN
            wanted = not message.observability_mode
            reply = UNCHANGED.get(phase, b"") if self._faulty else self._reply(phase, message, now)
        except DecodeError:
            self._observer.metrics.error(phase)
            _log.warning("a message is no ProcessingRequest", extra={"bytes": len(data)})
        except Exception as fault:  # noqa: BLE001 - see the head of this file
            self._fault(phase, fault)
            reply = UNCHANGED.get(phase, b"")
        self._observer.metrics.message(phase, monotonic() - now)
        return reply if wanted else None

    def close(self) -> None:
        """Count the exchange if it has not come to its end. Never raises."""
        try:
            self._record(monotonic())
        except Exception as fault:  # noqa: BLE001 - see the head of this file
            self._fault("close", fault)
        self._observer.metrics.streams_open.dec()

    def _reply(self, phase: str, message: ProcessingRequest, now: float) -> bytes:
        exchange = self._exchange
        if exchange is not None:
            if advance := _ADVANCE.get(phase):
                advance(exchange, message, now)
        elif phase == "request_headers":
            exchange = self._begin(message, now)
            if exchange is None:
                return IGNORE
        else:
            return UNCHANGED.get(phase, b"")
        reply = WATCH.get(phase, b"")
        if exchange.revision != self._published:
            self._published = exchange.revision
            facts = exchange.facts
            if news := self._publication.news(facts, self._model_tag(facts.request_model)):
                reply = with_metadata(reply, self._observer.metadata_namespace, news)
        if exchange.ended:
            # Before the reply goes out: whoever sees the response's end finds it counted.
            self._record(now)
        return reply

    def _begin(self, message: ProcessingRequest, now: float) -> Exchange | None:
        observer = self._observer
        headers = _headers(message.request_headers.headers, _BEGINNING)
        if path := self._initial_metadata.get(_PATH):
            headers[":path"] = path
        path = headers.get(":path", "").partition("?")[0]
        destination = host(headers.get(":authority", ""))
        found = observer.find(headers.get(":method", ""), path, destination)
        if found is None:
            observer.metrics.gap(Gap.NOT_LLM)
            return None
        self._exchange = exchange = Exchange(found, headers, now, observer.limits)
        attributes = message.attributes[_ATTRIBUTES].fields
        self._labels = (
            observer.workload(self._source(attributes, *_WORKLOAD)),
            observer.workload_namespace(self._source(attributes, *_WORKLOAD_NAMESPACE)),
            observer.destination(destination),
        )
        if message.request_headers.end_of_stream:
            exchange.request_end()
        return exchange

    def _source(self, attributes: Mapping[str, Value], names: tuple[str, ...], fallback: str) -> str | None:
        for name in names:
            if name in attributes:
                return attributes[name].string_value or self._initial_metadata.get(fallback)
        return self._initial_metadata.get(fallback)

    def _record(self, now: float) -> None:
        exchange = self._exchange
        if exchange is None or (record := exchange.finish(now)) is None:
            return
        observer = self._observer
        model = self._model_tag(record.facts.request_model)
        response_model = observer.response_model(record.facts.response_model)
        observer.metrics.record(record, Labels(*self._labels, model, response_model))
        if _log.isEnabledFor(logging.DEBUG):
            known = metadata(record.facts, model)
            _log.debug("a call ended", extra={"outcome": record.outcome, "status": record.status, **known})
        for gap in exchange.gaps:
            observer.metrics.gap(gap)

    def _model_tag(self, model: str | None) -> str:
        if model != self._model:
            self._model, self._tag = model, self._observer.model(model)
        return self._tag

    def _fault(self, phase: str, fault: Exception) -> None:
        """Count and log a fault of ours, without what was in the message; look at this exchange no further."""
        self._faulty = True
        self._observer.metrics.error(phase)
        where = "".join(traceback.format_tb(fault.__traceback__))
        _log.error("fault in this server", extra={"phase": phase, "type": type(fault).__name__, "where": where})


def _request_body(exchange: Exchange, message: ProcessingRequest, _now: float) -> None:
    body = message.request_body
    exchange.request_body(body.body)
    if body.end_of_stream:
        exchange.request_end()


def _response_headers(exchange: Exchange, message: ProcessingRequest, now: float) -> None:
    headers = message.response_headers
    exchange.response_headers(_headers(headers.headers, exchange.wanted_response_headers))
    if headers.end_of_stream:
        exchange.response_end(now)


def _response_body(exchange: Exchange, message: ProcessingRequest, now: float) -> None:
    body = message.response_body
    exchange.response_body(body.body, now)
    if body.end_of_stream:
        exchange.response_end(now)


_ADVANCE: Mapping[str, Callable[[Exchange, ProcessingRequest, float], None]] = {
    "request_body": _request_body,
    "request_trailers": lambda exchange, _, __: exchange.request_end(),
    "response_headers": _response_headers,
    "response_body": _response_body,
    "response_trailers": lambda exchange, _, now: exchange.response_end(now),
}
"""How an exchange is shown what a message brings, once it has begun."""


def _headers(headers: HeaderMap, wanted: Collection[str]) -> dict[str, str]:
    """Return some of the headers."""
    found: dict[str, str] = {}
    for header in headers.headers:
        name = header.key
        if name in wanted:
            # Values are bytes; what we look for is ASCII, and Latin-1 takes any byte.
            value = header.raw_value.decode("latin-1") or header.value
            # Several lines of one name are one list: RFC 9110, section 5.3.
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found
