"""One ext_proc stream: a message in, a reply out.

Envoy opens a stream for each HTTP exchange. No transport is known here: messages and replies are bytes. This is the
only place that catches every exception: a fault of ours costs a count, never the exchange.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from time import monotonic

from google.protobuf.message import DecodeError

from extproc.core.exchange import Exchange
from extproc.core.facts import Gap
from extproc.formats import Find
from extproc.labels import UNKNOWN, BoundedLabel, host
from extproc.metadata import added, metadata
from extproc.metrics import Labels, Metrics
from extproc.settings import Settings
from extproc.wire.ext_proc_pb2 import HeaderMap, ProcessingRequest
from extproc.wire.replies import IGNORE, UNCHANGED, WATCH

_log = logging.getLogger(__name__)

# Envoy's key for attributes, whatever name the filter was given.
_ATTRIBUTES = "envoy.filters.http.ext_proc"

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
        self._published = 0  # the revision of the facts that Envoy has
        self._labels = (UNKNOWN, UNKNOWN, UNKNOWN)  # workload, its namespace, destination
        observer.metrics.streams_open.inc()

    def receive(self, data: bytes) -> bytes | None:
        """Return the reply to a message; `None` if Envoy wants none. Never raises."""
        now = monotonic()
        metrics = self._observer.metrics
        phase, reply, wanted = UNKNOWN, b"", True
        try:
            message = ProcessingRequest.FromString(data)
            phase = message.WhichOneof("request") or phase
            reply, wanted = UNCHANGED.get(phase, reply), not message.observability_mode
            if not self._faulty:
                reply = self._reply(phase, message, now)
        except DecodeError:
            metrics.error(phase)
            _log.warning("a message is no ProcessingRequest", extra={"bytes": len(data)})
        except Exception as fault:  # noqa: BLE001 - see the head of this file
            self._fault(phase, fault)
        finally:
            metrics.message(phase, monotonic() - now)
        return reply if wanted else None

    def close(self) -> None:
        """Count the exchange if it has not come to its end. Never raises."""
        try:
            self._record(monotonic())
        except Exception as fault:  # noqa: BLE001 - see the head of this file
            self._fault("close", fault)
        self._observer.metrics.streams_open.dec()

    def _reply(self, phase: str, message: ProcessingRequest, now: float) -> bytes:
        if self._exchange is not None:
            _advance(self._exchange, phase, message, now)
        elif phase == "request_headers":
            self._begin(message, now)
        exchange = self._exchange
        if exchange is None:
            return IGNORE if phase == "request_headers" else UNCHANGED.get(phase, b"")
        reply = WATCH.get(phase, b"")
        if exchange.revision != self._published:
            self._published = exchange.revision
            facts = exchange.facts
            reply += added(self._observer.metadata_namespace, facts, self._model_tag(facts.request_model))
        if exchange.ended:
            # Before the reply goes out: whoever sees the response's end finds it counted.
            self._record(now)
        return reply

    def _begin(self, message: ProcessingRequest, now: float) -> None:
        observer = self._observer
        headers = _headers(message.request_headers.headers)
        if path := self._initial_metadata.get(_PATH):
            headers[":path"] = path
        path = headers.get(":path", "").partition("?")[0]
        destination = host(headers.get(":authority", ""))
        found = observer.find(headers.get(":method", ""), path, destination)
        if found is None:
            observer.metrics.gap(Gap.NOT_LLM)
            return
        self._exchange = Exchange(found, headers, now, observer.limits)
        attributes = message.attributes[_ATTRIBUTES].fields
        workload, namespace = (
            next((attributes[name].string_value for name in names if name in attributes), None)
            or self._initial_metadata.get(fallback)
            for names, fallback in (_WORKLOAD, _WORKLOAD_NAMESPACE)
        )
        self._labels = (
            observer.workload(workload),
            observer.workload_namespace(namespace),
            observer.destination(destination),
        )
        if message.request_headers.end_of_stream:
            self._exchange.request_end()

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


def _advance(exchange: Exchange, phase: str, message: ProcessingRequest, now: float) -> None:
    """Show the exchange what a message brings."""
    match phase:
        case "request_body":
            exchange.request_body(message.request_body.body)
            if message.request_body.end_of_stream:
                exchange.request_end()
        case "request_trailers":
            exchange.request_end()
        case "response_headers":
            exchange.response_headers(_headers(message.response_headers.headers))
            if message.response_headers.end_of_stream:
                exchange.response_end(now)
        case "response_body":
            exchange.response_body(message.response_body.body, now)
            if message.response_body.end_of_stream:
                exchange.response_end(now)
        case "response_trailers":
            exchange.response_end(now)


def _headers(headers: HeaderMap) -> dict[str, str]:
    # Values are bytes; what we look for is ASCII, and Latin-1 takes any byte.
    found: dict[str, str] = {}
    for header in headers.headers:
        value = header.raw_value.decode("latin-1") or header.value
        # Several lines of one name are one list: RFC 9110, section 5.3.
        found[header.key] = f"{found[header.key]}, {value}" if header.key in found else value
    return found
