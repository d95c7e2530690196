"""One call to a model: its request and its response.

The shell makes an exchange from the request's headers, calls the methods in the order in which the bytes go by, and
asks for the facts whenever it likes. No order and no input makes a method raise; an end that never comes is what
`finish` is for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from extproc.core.body import Body, Choose
from extproc.core.choice import KEPT, Choice, Response, of_begun_request, of_request
from extproc.core.content import IDENTITY, Allowance, decoder
from extproc.core.document import Document
from extproc.core.facts import Facts, Gap, Outcome, Record, UsageStatus
from extproc.core.format import Counts, Format
from extproc.core.framing import Framing

Headers = Mapping[str, str]
"""Names in lower case, pseudo-headers included; the values of a repeated header joined by commas."""

REQUEST_HEADERS = frozenset((":path", "content-type", "content-encoding"))
"""The headers of a request that an exchange looks at."""
RESPONSE_HEADERS = frozenset((":status", "content-type", "content-encoding", "content-length"))
"""The headers of a response that it looks at, beside those that its format names."""

_STATUS = re.compile("[0-9]{3}")
_LENGTH = re.compile("[0-9]{1,18}")
_FIRST_ERROR = 400


@dataclass(frozen=True, slots=True)
class Limits:
    """What one exchange may cost, in bytes."""

    document: int = 1024 * 1024
    """Longest document held: a longer body is skimmed, a longer event is skipped."""
    decoded: int = 256 * 1024 * 1024
    """Longest body after decoding its Content-Encoding: what is beyond is not looked at."""
    message: int = 1024 * 1024
    """What one message may decode to, beside `content.RATIO` times its length: a body with more is not looked at."""


class Exchange:
    """Follows one request and its response; all times are seconds on one monotonic clock."""

    __slots__ = (
        "_answered",
        "_counts",
        "_end",
        "_failed",
        "_finished",
        "_first_token",
        "_format",
        "_left",
        "_limits",
        "_request",
        "_request_type",
        "_response",
        "_settled",
        "_start",
        "_status",
        "facts",
        "gaps",
        "revision",
    )

    def __init__(self, api: Format, request_headers: Headers, now: float, limits: Limits) -> None:
        path = request_headers.get(":path", "").partition("?")[0]
        self.facts = Facts(api.provider, api.api, api.operation, requested_model=api.model_in_path(path))
        """What is known so far."""
        self.revision = 1
        """Goes up whenever `facts` has changed."""
        self.gaps: set[Gap] = set()
        """What stood in the way, each once."""
        self._format = api
        self._limits = limits
        self._start = now
        self._end: float | None = None
        self._first_token: float | None = None
        self._counts: Counts = {}
        self._status = 0
        self._left: int | None = None  # bytes of the response that its Content-Length says are still to come
        self._answered = False
        self._failed = False
        self._finished = False
        self._settled = False  # of events to come only those with news are looked at
        self._request_type = request_headers.get("content-type", "")
        self._request: Body | None = self._body(request_headers, self._choose_for_request, KEPT)
        self._response: Body | None = None

    def request_body(self, data: bytes) -> None:
        """Take the next bytes of the request's body."""
        if self._request is not None:
            for item in self._request.feed(data):
                self._request_document(item)

    def request_end(self) -> None:
        """Note the end of the request: with its headers, its last bytes or its trailers."""
        if self._request is not None:
            for item in self._request.end():
                self._request_document(item)
            self._request = None

    def response_headers(self, headers: Headers) -> None:
        """Take the response's headers."""
        self._read_begun_request()
        status = headers.get(":status", "")
        self._status = int(status) if _STATUS.fullmatch(status) else 0
        length = headers.get("content-length", "")
        self._left = int(length) if _LENGTH.fullmatch(length) else None
        content_type, failed = headers.get("content-type", ""), self._status >= _FIRST_ERROR
        response = Response(self._format, content_type, self._limits.document, failed=failed)
        if response.is_labelled_stream:
            self._set_streaming(streaming=True)
        self._response = self._body(headers, lambda first, whole: self._chosen(response.choose(first, whole=whole)))
        if found := self._format.in_headers(headers):
            self._note(found, UsageStatus.REPORTED)

    def response_body(self, data: bytes, now: float) -> None:
        """Take the next bytes of the response's body."""
        if self._response is not None:
            # Nearly every message of a stream is one event, and nearly none of them has news.
            if not (self._settled and self._response.takes_one_event(data) and not self._format.has_news(data)):
                for item in self._response.feed(data):
                    self._response_document(item, now)
            # The end may be told later, in a message of its own. By then a client that counts bytes has the last one
            # and may have gone, and with it the proxy's interest in what we know.
            if self._left is not None:
                self._left -= len(data)
                if self._left == 0:
                    self.response_end(now)

    def response_end(self, now: float) -> None:
        """Note the end of the response: with its headers, its last bytes or its trailers."""
        if self._response is not None:
            for item in self._response.end():
                self._response_document(item, now)
            self._response = None
            self._complete(now)

    @property
    def ended(self) -> bool:
        """Whether the response has come to its end, so that nothing can change any more."""
        return self._end is not None and self._response is None

    def finish(self, now: float) -> Record | None:
        """End the exchange, however far it came: its record the first time, then `None`."""
        if self._finished:
            return None
        self._finished = True
        self._read_begun_request()
        if self._failed or self._status >= _FIRST_ERROR:
            outcome = Outcome.ERROR
        elif self._end is None and not (self._answered and self.facts.usage_status is UsageStatus.REPORTED):
            outcome = Outcome.ABORTED
        else:
            outcome = Outcome.COMPLETE
            if self.facts.usage_status is UsageStatus.MISSING:
                self.gaps.add(Gap.NO_USAGE)
        return Record(self.facts, outcome, self._status, (now if self._end is None else self._end) - self._start)

    def _body(self, headers: Headers, choose: Choose, kept: int = 0) -> Body:
        encoding = headers.get("content-encoding")
        if not encoding:
            return Body(IDENTITY, choose, kept)
        return Body(decoder(encoding, Allowance(self._limits.decoded, self._limits.message)), choose, kept)

    def _choose_for_request(self, _first: bytes, _whole: bool) -> Framing:  # noqa: FBT001 - see `Choose`
        return of_request(self._format, self._request_type, self._limits.document)

    def _chosen(self, choice: Choice | None) -> Framing | None:
        if choice is None:
            return None
        self._set_streaming(streaming=choice.streaming)
        return choice.framing

    def _set_streaming(self, *, streaming: bool) -> None:
        if streaming != self.facts.streaming:
            self.facts.streaming = streaming
            self.revision += 1

    def _request_document(self, item: bytes | Gap) -> None:
        if isinstance(item, Gap):
            self.gaps.add(item)
        elif (document := self._format.request.read(item)) is None:
            self.gaps.add(Gap.UNPARSABLE)
        else:
            self._note_requested(document)

    def _read_begun_request(self) -> None:
        """Take the model from what has come of the request: who is answered early, or goes away, may never end it."""
        if self._request is None or self.facts.requested_model is not None:
            return
        framing = of_begun_request(self._format, self._request_type, self._limits.document)
        for item in self._request.so_far(framing):
            if not isinstance(item, Gap) and (document := self._format.request.read(item)):
                self._note_requested(document)

    def _note_requested(self, document: Document) -> None:
        """Take over which model a request names; the first one counts."""
        if self.facts.requested_model is None and (model := self._format.requested_model(document)):
            self.facts.requested_model = model
            self.revision += 1

    def _response_document(self, item: bytes | Gap, now: float) -> None:
        if isinstance(item, Gap):
            self.gaps.add(item)
        elif self.facts.streaming:
            self._event(item, now)
        else:
            self._whole(item)

    def _whole(self, data: bytes) -> None:
        document = self._format.response.read(data)
        if document is None:
            self.gaps.add(Gap.UNPARSABLE)
            return
        self._note(document, UsageStatus.REPORTED)

    def _event(self, data: bytes, now: float) -> None:
        if data == self._format.done:
            self._complete(now)
            return
        # The event of the first token names the model, or one before it does, or the one with the counts.
        awaits_content = self._first_token is None and self._format.content
        awaits_model = self.facts.response_model is None and not self._format.content
        self._settled = not (awaits_content or awaits_model)
        if self._settled and not self._format.has_news(data):
            return
        event = (self._format.event if awaits_content else self._format.response).read(data)
        if event is None:
            self.gaps.add(Gap.UNPARSABLE)
            return
        if awaits_content and self._format.has_content(event):
            self._first_token = now
            self.facts.time_to_first_token = now - self._start
            self.revision += 1
        self._answered = self._answered or self._format.is_finish(event)
        final = self._answered or self._end is not None or self._format.is_final(event)
        self._note(event, UsageStatus.REPORTED if final else UsageStatus.PARTIAL)
        if self._format.is_last(event):
            self._complete(now)

    def _note(self, document: Document, status: UsageStatus) -> None:
        """Take over what a response or an event says of the model and the tokens."""
        facts = self.facts
        if self._format.has_error(document):
            self._failed = True
        model = self._format.responded_model(document)
        if model is not None and model != facts.response_model:
            facts.response_model = model
            self.revision += 1
        if counts := self._format.counts(document):
            self._counts.update(counts)
            usage = self._format.total(self._counts)
            if (usage, status) != (facts.usage, facts.usage_status):
                facts.usage, facts.usage_status = usage, status
                self.revision += 1

    def _complete(self, now: float) -> None:
        """Note that the answer is whole."""
        if self._end is not None:
            return
        self._end = now
        facts = self.facts
        if facts.usage_status is UsageStatus.PARTIAL and not self._failed:
            facts.usage_status = UsageStatus.REPORTED
            self.revision += 1
        after_first = (facts.usage.output_tokens or 0) - 1
        if self._first_token is not None and after_first > 0:
            facts.time_per_output_token = (now - self._first_token) / after_first
            self.revision += 1
