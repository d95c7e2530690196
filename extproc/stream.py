"""One ext_proc stream: a message in, a reply out.

Envoy opens a stream for each HTTP exchange. No transport is known here: messages and replies are bytes. This is the
only place that catches every exception: a fault of ours costs a count, never the exchange.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from time import monotonic

from extproc.core.exchange import Exchange
from extproc.core.facts import Gap
from extproc.formats import Find
from extproc.labels import UNKNOWN, BoundedLabel, host
from extproc.metadata import Publication, metadata
from extproc.metrics import Labels, Metrics
from extproc.settings import Settings
from extproc.wanted import CALLER, WORKLOAD, wanted_headers
from extproc.wire.replies import IGNORE, UNCHANGED, WATCH, with_metadata
from extproc.wire.requests import DecodeError, Message, reader

_log = logging.getLogger(__name__)

# gRPC initial metadata that says which path the route will rewrite to: routes rewrite behind this filter.
_PATH = "x-llmproxy-path"

# Who calls: the peer of a gateway, else the proxy itself; else gRPC initial metadata.
_WORKLOAD, _NAMESPACE = zip(CALLER, WORKLOAD, strict=True)
_OTHERWISE = ("x-llmproxy-source-workload", "x-llmproxy-source-workload-namespace")


class Observer:
    """What all streams of a process share."""

    def __init__(self, settings: Settings, metrics: Metrics, find: Find) -> None:
        def label(name: str, pinned: tuple[str, ...] = ()) -> BoundedLabel:
            return BoundedLabel(name, settings.label_limit, pinned, metrics.overflow)

        self.metrics = metrics
        self.find = find
        self.read = reader(wanted_headers(settings.formats), CALLER + WORKLOAD)
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
            message = self._observer.read(data)
            phase, wanted = message.phase or UNKNOWN, message.is_answered
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

    def _reply(self, phase: str, message: Message, now: float) -> bytes:
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

    def _begin(self, message: Message, now: float) -> Exchange | None:
        observer = self._observer
        headers = message.headers
        if path := self._initial_metadata.get(_PATH):
            headers = {**headers, ":path": path}
        path = headers.get(":path", "").partition("?")[0]
        destination = host(headers.get(":authority", ""))
        found = observer.find(headers.get(":method", ""), path, destination)
        if found is None:
            observer.metrics.gap(Gap.NOT_LLM)
            return None
        self._exchange = exchange = Exchange(found, headers, now, observer.limits)
        attributes = message.attributes
        self._labels = (
            observer.workload(self._source(attributes, _WORKLOAD, _OTHERWISE[0])),
            observer.workload_namespace(self._source(attributes, _NAMESPACE, _OTHERWISE[1])),
            observer.destination(destination),
        )
        if message.end_of_stream:
            exchange.request_end()
        return exchange

    def _source(self, attributes: Mapping[str, str], names: tuple[str, ...], fallback: str) -> str | None:
        for name in names:
            if name in attributes:
                return attributes[name] or self._initial_metadata.get(fallback)
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


def _request_body(exchange: Exchange, message: Message, _now: float) -> None:
    exchange.request_body(message.body)
    if message.end_of_stream:
        exchange.request_end()


def _response_headers(exchange: Exchange, message: Message, now: float) -> None:
    exchange.response_headers(message.headers)
    if message.end_of_stream:
        exchange.response_end(now)


def _response_body(exchange: Exchange, message: Message, now: float) -> None:
    exchange.response_body(message.body, now)
    if message.end_of_stream:
        exchange.response_end(now)


_ADVANCE: Mapping[str, Callable[[Exchange, Message, float], None]] = {
    "request_body": _request_body,
    "request_trailers": lambda exchange, _, __: exchange.request_end(),
    "response_headers": _response_headers,
    "response_body": _response_body,
    "response_trailers": lambda exchange, _, now: exchange.response_end(now),
}
"""How an exchange is shown what a message brings, once it has begun."""
