from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc import formats
from extproc.core.exchange import Exchange
from extproc.core.format import Format
from extproc.formats import Find
from extproc.metrics import Metrics
from extproc.settings import Settings
from extproc.stream import Observer, Stream
from extproc.wire.ext_proc_pb2 import HeaderValue, ProcessingRequest, ProcessingResponse
from extproc.wire.replies import IGNORE, PHASES, UNCHANGED, WATCH
from tests.samples import total
from tests.wire.messages import CHAT, EVENTS, OK, body, headers, metadata_of, phase_of, trailers

# The documented example of the API reference, shortened to what has facts in it:
# https://platform.openai.com/docs/api-reference/chat/create
REQUEST = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello!"}]}'
RESPONSE = (
    b'{"object": "chat.completion", "model": "gpt-4o-mini-2024-07-18", "choices": [{"index": 0}],'
    b' "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}}'
)
FIRST = b'data: {"model": "gpt-4o-mini-2024-07-18", "choices": [{"delta": {"content": "Hi"}}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}}\n\n'
DONE = b"data: [DONE]\n\n"

AT_ONCE = {"provider": "openai", "api": "chat_completions", "usage": "missing", "model_tag": "unknown"}
ASKED = {"request_model": "gpt-4o-mini", "model_tag": "gpt-4o-mini"}
ANSWERED = {"response_model": "gpt-4o-mini-2024-07-18"}
COUNTED = {
    "request_prompt_tokens": 19,
    "request_completion_tokens": 10,
    "request_total_tokens": 29,
    "usage": "reported",
}

WHOLE = (
    headers("request_headers", CHAT),
    body("request_body", REQUEST, end=True),
    headers("response_headers", OK),
    body("response_body", RESPONSE, end=True),
)


@dataclass
class Server:
    """All that streams share, and what it has counted."""

    settings: Settings = field(default_factory=Settings)
    find: Find = formats.find
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.observer = Observer(self.settings, self.metrics, self.find)

    def stream(self, **initial_metadata: str) -> Stream:
        """Open a stream; `_` in a name of the metadata is `-`."""
        return Stream(self.observer, {name.replace("_", "-"): value for name, value in initial_metadata.items()})

    def talk(self, messages: Iterable[bytes], **initial_metadata: str) -> list[bytes]:
        """Run a stream to its end; return the replies."""
        stream = self.stream(**initial_metadata)
        replies = [stream.receive(message) for message in messages]
        stream.close()
        return [reply for reply in replies if reply is not None]

    def total(self, name: str, **labels: str) -> float | None:
        """Return what is counted under a name."""
        return total(self.metrics.exposition(), name, **labels)


def call(authority: str = "api.openai.com", model: str = "gpt-4o-mini") -> tuple[bytes, ...]:
    """Return the messages of a whole call."""
    asked = REQUEST.replace(b"gpt-4o-mini", model.encode())
    return (headers("request_headers", {**CHAT, ":authority": authority}), body("request_body", asked, end=True))


def without_times(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the times out."""
    return {key: value for key, value in metadata.items() if not key.endswith("_ms")}


def test_whole_call() -> None:
    """Metadata goes out with the first reply that can have it: what is known at once, the model, the counts."""
    replies = Server().talk(WHOLE)
    assert [phase_of(reply) for reply in replies] == [
        "request_headers",
        "request_body",
        "response_headers",
        "response_body",
    ]
    assert [metadata_of(reply) for reply in replies] == [
        AT_ONCE,
        ASKED,
        {},
        {**ANSWERED, **COUNTED, "streaming": False},
    ]


def test_streamed_call() -> None:
    """Of a stream the model goes out with its first event, the counts with theirs; nothing is said twice."""
    replies = Server().talk(
        (
            *WHOLE[:2],
            headers("response_headers", EVENTS),
            body("response_body", FIRST),
            body("response_body", FIRST),
            body("response_body", USAGE),
            body("response_body", DONE),
            body("response_body", b"", end=True),
        )
    )
    found = [metadata_of(reply) for reply in replies]
    assert [without_times(metadata) for metadata in found] == [
        AT_ONCE,
        ASKED,
        {"streaming": True},
        ANSWERED,
        {},
        COUNTED,
        {},  # but for the time per token, known at the end
        {},
    ]
    assert found[3]["time_to_first_token_ms"] >= 0
    assert "time_per_output_token_ms" not in found[5]
    assert found[6]["time_per_output_token_ms"] >= 0
    assert [phase_of(reply) for reply in replies[3:]] == ["response_body"] * 5


@pytest.mark.parametrize(
    ("last", "before"),
    [
        pytest.param(body("response_body", RESPONSE, end=True), WHOLE[2:3], id="last bytes"),
        pytest.param(
            body("response_body", b"", end=True), (WHOLE[2], body("response_body", RESPONSE)), id="empty last chunk"
        ),
        pytest.param(trailers("response_trailers"), (WHOLE[2], body("response_body", RESPONSE)), id="trailers"),
        pytest.param(
            body("response_body", RESPONSE),
            (headers("response_headers", {**OK, "content-length": str(len(RESPONSE))}),),
            id="last bytes by Content-Length",
        ),
    ],
)
def test_recorded_once_before_the_last_reply(last: bytes, before: tuple[bytes, ...]) -> None:
    """Whoever sees the end of a response finds it counted, and the end of the stream does not count it again."""
    server = Server()
    stream = server.stream()
    for message in (*WHOLE[:2], *before):
        stream.receive(message)
    assert server.total("asm_llm_proxy_requests") is None
    stream.receive(last)
    assert server.total("asm_llm_proxy_requests", outcome="complete", usage="reported", response_code="200") == 1
    stream.close()
    assert server.total("asm_llm_proxy_requests") == 1
    assert server.total("asm_llm_proxy_prompt_tokens", llmproxy_model="gpt-4o-mini") == 19


@pytest.mark.parametrize(
    ("messages", "outcome"),
    [
        pytest.param(WHOLE[:1], "aborted", id="request not sent"),
        pytest.param(WHOLE[:2], "aborted", id="not answered"),
        pytest.param(WHOLE[:3], "aborted", id="answer not sent"),
        pytest.param((*WHOLE[:2], headers("response_headers", {":status": "503"})), "error", id="upstream error"),
        pytest.param(WHOLE, "complete", id="complete"),
    ],
)
def test_recorded_once_however_it_ends(messages: tuple[bytes, ...], outcome: str) -> None:
    """A stream may end after any message: its exchange is counted, once."""
    server = Server()
    server.talk(messages)
    assert server.total("asm_llm_proxy_requests") == 1
    assert server.total("asm_llm_proxy_requests", outcome=outcome) == 1


def test_a_request_without_body_ends_with_its_headers() -> None:
    """A call to a model without a body is a call."""
    server = Server()
    server.talk((headers("request_headers", CHAT, end=True), headers("response_headers", {":status": "400"}, end=True)))
    assert server.total("asm_llm_proxy_requests", outcome="error", llmproxy_model="unknown", response_code="400") == 1


def test_missing_usage_adds_no_zero() -> None:
    """A complete answer without counts is counted as such, and in no token counter."""
    server = Server()
    server.talk((*WHOLE[:3], body("response_body", b'{"model": "m"}', end=True)))
    assert server.total("asm_llm_proxy_requests", usage="missing") == 1
    assert server.total("extproc_gaps", gap="no_usage") == 1
    assert server.total("asm_llm_proxy_prompt_tokens") is None
    assert server.total("asm_llm_proxy_completion_tokens") is None


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/chat/completions"), ("POST", "/"), ("POST", "/v1/models"), ("", ""), ("POST", "/v1/chat/completion")],
)
def test_no_call_to_a_model(method: str, path: str) -> None:
    """Envoy is told to show no more of what is no call to a model; it is a gap, and no request."""
    server = Server()
    replies = server.talk((headers("request_headers", {**CHAT, ":method": method, ":path": path}), *WHOLE[1:]))
    # Envoy may have more messages under way.
    assert replies == [IGNORE, *(UNCHANGED[phase] for phase in ("request_body", "response_headers", "response_body"))]
    assert server.total("extproc_gaps", gap="not_llm") == 1
    assert server.total("extproc_gaps") == 1
    assert server.total("asm_llm_proxy_requests") is None


@pytest.mark.parametrize(
    ("path", "rewritten", "is_call"),
    [
        pytest.param("/v1/chat/completions?api-version=1", None, True, id="query"),
        pytest.param("/", "/v1/chat/completions", True, id="rewritten to a call"),
        pytest.param("/", "/v1/chat/completions?a=b", True, id="rewritten with a query"),
        pytest.param("/v1/chat/completions", "/other", False, id="rewritten to something else"),
        pytest.param("/v1/chat/completions", "", True, id="empty means not rewritten"),
    ],
)
def test_path(path: str, rewritten: str | None, *, is_call: bool) -> None:
    """The path is what the route says it rewrites to, else the request's; a query does not matter."""
    server = Server()
    metadata = {} if rewritten is None else {"x_llmproxy_path": rewritten}
    server.talk((headers("request_headers", {**CHAT, ":path": path}), *WHOLE[1:]), **metadata)
    assert server.total("asm_llm_proxy_requests") == (1 if is_call else None)


def test_headers_that_are_alike() -> None:
    """Messages of headers that are alike are read once; what one stream makes of them is not another's."""
    server = Server()
    begin = headers("request_headers", {**CHAT, ":path": "/"})
    assert server.talk([begin]) == [IGNORE]
    assert server.talk([begin], x_llmproxy_path="/v1/chat/completions") != [IGNORE]
    assert server.talk([begin]) == [IGNORE]


def test_observability_mode() -> None:
    """Where Envoy wants no replies it gets none, and all is counted."""
    server = Server()
    stream = server.stream()
    for data in WHOLE:
        message = ProcessingRequest.FromString(data)
        message.observability_mode = True
        assert stream.receive(message.SerializeToString()) is None
    assert server.total("asm_llm_proxy_requests", outcome="complete") == 1


def test_observability_mode_with_a_fault() -> None:
    """Where Envoy wants no replies it gets none, even if we fail."""
    message = ProcessingRequest.FromString(WHOLE[0])
    message.observability_mode = True
    assert Server(find=broken_find).stream().receive(message.SerializeToString()) is None


@pytest.mark.parametrize("data", [b"\xff", b"garbage", WHOLE[0][:-1], b"\x12\xff\xff\xff\xff\x0f"])
def test_garbage(data: bytes) -> None:
    """What is no message gets an empty reply and is counted; what comes after it is looked at."""
    server = Server()
    replies = server.talk((data, *WHOLE))
    assert replies[0] == b""
    assert metadata_of(replies[-1])["request_prompt_tokens"] == 19
    assert server.total("extproc_errors", phase="unknown") == 1
    assert server.total("asm_llm_proxy_requests") == 1


@pytest.mark.parametrize(
    "data", [b"", b"\xfa\x01\x00", ProcessingRequest(observability_mode=False).SerializeToString()]
)
def test_message_of_an_unknown_phase(data: bytes) -> None:
    """What Envoy may add to the protocol one day gets an empty reply, and is no error."""
    server = Server()
    assert server.talk((data,)) == [b""]
    assert server.total("extproc_errors") == 0
    assert server.total("extproc_messages", phase="unknown") == 1


# Made, not written: a traceback shows lines of this file.
SECRET = "".join(reversed("terces"))


def broken_find(method: str, path: str, host: str) -> Format | None:
    """Fail, with the request in the message."""
    raise LookupError(f"{SECRET} {method} {path} {host}")


SECRETS = (
    headers("request_headers", {**CHAT, "authorization": f"Bearer {SECRET}"}),
    body("request_body", b'{"model": "%s"}' % SECRET.encode(), end=True),
    headers("response_headers", {**OK, "set-cookie": SECRET}),
    body("response_body", SECRET.encode(), end=True),
)


@pytest.mark.parametrize(
    ("method", "phase", "faulty"),
    [
        ("request_body", "request_body", 1),
        ("response_headers", "response_headers", 2),
        ("response_body", "response_body", 3),
        ("finish", "response_body", 3),
    ],
)
def test_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str, phase: str, faulty: int
) -> None:
    """A fault of ours costs a count: the reply is empty, the log has nothing of the message, the rest goes by."""

    def fail(*args: object) -> None:
        raise ValueError(f"{SECRET} {args}")

    server = Server()
    stream = server.stream()
    monkeypatch.setattr(Exchange, method, fail)
    with caplog.at_level(logging.DEBUG):
        replies = [stream.receive(message) for message in SECRETS]
    monkeypatch.undo()
    assert [phase_of(reply or b"") for reply in replies] == phases(SECRETS)
    assert replies[faulty:] == [UNCHANGED[name] for name in phases(SECRETS)[faulty:]]
    stream.close()
    assert server.total("extproc_errors", phase=phase) == server.total("extproc_errors") == 1
    assert server.total("asm_llm_proxy_requests") == 1
    (record,) = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert record.levelno == logging.ERROR
    assert (record.__dict__["type"], record.__dict__["phase"]) == ("ValueError", phase)
    assert "in fail" in record.__dict__["where"]
    assert SECRET not in str(record.__dict__)
    assert record.exc_info is None


def test_log_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    """At the level debug each call is a line with what is known of it, and nothing of what was said."""
    with caplog.at_level(logging.DEBUG):
        Server().talk(
            (SECRETS[0], body("request_body", b'{"messages": "%s"}' % SECRET.encode(), end=True), *SECRETS[2:])
        )
        Server().talk(WHOLE)
    assert SECRET not in str([record.__dict__ for record in caplog.records])
    last = caplog.records[-1].__dict__
    assert (last["msg"], last["outcome"], last["status"]) == ("a call ended", "complete", 200)
    assert COUNTED.items() <= last.items()


def test_fault_before_there_is_an_exchange(caplog: pytest.LogCaptureFixture) -> None:
    """A fault with the first message leaves nothing to count but itself."""
    server = Server(find=broken_find)
    assert server.talk(SECRETS) == [UNCHANGED[phase] for phase in phases(SECRETS)]
    assert server.total("extproc_errors", phase="request_headers") == server.total("extproc_errors") == 1
    assert server.total("asm_llm_proxy_requests") is None
    assert SECRET not in caplog.text + str([record.__dict__ for record in caplog.records])


def test_fault_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault while counting an exchange does not reach the transport, and the stream is closed all the same."""
    server = Server()
    stream = server.stream()
    stream.receive(WHOLE[0])
    monkeypatch.setattr(Metrics, "record", broken_find)
    stream.close()
    assert server.total("extproc_errors", phase="close") == 1
    assert server.total("extproc_streams_open") == 0


def phases(messages: Iterable[bytes]) -> list[str]:
    """Return what the messages are."""
    return [str(ProcessingRequest.FromString(message).WhichOneof("request")) for message in messages]


WORKLOAD, NAMESPACE = "xds.node.metadata.WORKLOAD_NAME", "xds.node.metadata.NAMESPACE"
BY_METADATA = {"x_llmproxy_source_workload": "sleep", "x_llmproxy_source_workload_namespace": "default"}


@pytest.mark.parametrize(
    ("attributes", "initial_metadata", "expected"),
    [
        pytest.param({WORKLOAD: "curl", NAMESPACE: "web"}, {}, ("curl", "web"), id="attributes"),
        pytest.param({WORKLOAD: "curl", NAMESPACE: "web"}, BY_METADATA, ("curl", "web"), id="attributes come first"),
        pytest.param({}, BY_METADATA, ("sleep", "default"), id="gRPC initial metadata"),
        pytest.param({WORKLOAD: "", NAMESPACE: "web"}, BY_METADATA, ("sleep", "web"), id="an empty one is none"),
        pytest.param(None, {}, ("unknown", "unknown"), id="neither"),
        pytest.param({WORKLOAD: 1, NAMESPACE: ["a"]}, {}, ("unknown", "unknown"), id="of another type"),
        pytest.param({WORKLOAD: 'a"b\nc|d'}, {}, ("a_b_c_d", "unknown"), id="cleaned"),
    ],
)
def test_source(attributes: dict[str, str] | None, initial_metadata: dict[str, str], expected: tuple[str, str]) -> None:
    """The caller is named by the proxy's attributes, else by gRPC initial metadata, else `unknown`."""
    server = Server()
    server.talk((headers("request_headers", CHAT, attributes=attributes), *WHOLE[1:]), **initial_metadata)
    workload, namespace = expected
    source = {"llmproxy_source_workload": workload, "llmproxy_source_workload_namespace": namespace}
    assert server.total("asm_llm_proxy_requests", **source) == 1
    assert server.total("asm_llm_proxy_prompt_tokens", **source) == 19


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("api.openai.com", "api.openai.com"),
        ("api.openai.com:443", "api.openai.com"),
        ("API.OpenAI.com:8443", "api.openai.com"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[2001:db8::1]:8080", "[2001:db8::1]"),
        ("", "unknown"),
        ('a"b|c\\d:80', "a_b_c_d"),
        ("h" * 200, "h" * 128),
    ],
)
def test_destination(authority: str, expected: str) -> None:
    """The destination is the host that was asked for: without its port, in lower case, safe in a label."""
    server = Server()
    server.talk(call(authority))
    assert server.total("asm_llm_proxy_requests", llmproxy_destination_service=expected) == 1


def test_labels_are_bounded() -> None:
    """Of models and hosts that clients name the first are kept, as are pinned ones; the rest are `other`."""
    server = Server(Settings(label_limit=2, pinned_models=("pinned",), pinned_hosts=("pinned.example",)))
    for number in range(5):
        replies = server.talk(call(f"h{number}.example", f"m{number}"))
        assert metadata_of(replies[1])["request_model"] == f"m{number}"
        assert metadata_of(replies[1])["model_tag"] == (f"m{number}" if number < 2 else "other")
    replies = server.talk(call("pinned.example", "pinned"))
    assert metadata_of(replies[1])["model_tag"] == "pinned"
    for label, name in (("llmproxy_model", "m{}"), ("llmproxy_destination_service", "h{}.example")):
        assert [server.total("asm_llm_proxy_requests", **{label: name.format(n)}) for n in range(3)] == [1, 1, None]
        assert server.total("asm_llm_proxy_requests", **{label: "other"}) == 3
    assert server.total("asm_llm_proxy_requests", llmproxy_model="pinned") == 1
    assert server.total("asm_llm_proxy_requests", llmproxy_destination_service="pinned.example") == 1
    assert server.total("extproc_label_overflows", label="destination_service") == 3
    assert (server.total("extproc_label_overflows", label="model") or 0) >= 3


def test_namespace() -> None:
    """Metadata goes to the namespace that is set."""
    (reply,) = Server(Settings(namespace="my.own")).talk(WHOLE[:1])
    assert list(ProcessingResponse.FromString(reply).dynamic_metadata.fields) == ["my.own"]


@pytest.mark.parametrize(
    ("header", "is_call"),
    [
        pytest.param(HeaderValue(key=":path", value="/v1/chat/completions"), True, id="value"),
        pytest.param(HeaderValue(key=":path", raw_value=b"/v1/chat/completions"), True, id="raw_value"),
        pytest.param(
            HeaderValue(key=":path", value="/", raw_value=b"/v1/chat/completions"), True, id="raw_value first"
        ),
        pytest.param(HeaderValue(key=":path", raw_value=b"/\xff"), False, id="not UTF-8"),
    ],
)
def test_header_values(header: HeaderValue, *, is_call: bool) -> None:
    """Envoy writes a header's value as bytes, or as a text by a legacy runtime guard."""
    message = ProcessingRequest()
    message.request_headers.headers.headers.extend([HeaderValue(key=":method", raw_value=b"POST"), header])
    server = Server()
    server.talk((message.SerializeToString(),))
    assert server.total("asm_llm_proxy_requests") == (1 if is_call else None)


def test_what_is_counted_of_messages() -> None:
    """Each message is counted and timed by its phase, and streams while they are open."""
    server = Server()
    streams = [server.stream(), server.stream()]
    assert server.total("extproc_streams_open") == 2
    for message in WHOLE:
        streams[0].receive(message)
    for stream in streams:
        stream.close()
    assert server.total("extproc_streams_open") == 0
    for phase in phases(WHOLE):
        assert server.total("extproc_messages", phase=phase) == 1
        assert server.total("extproc_message_seconds_count", phase=phase) == 1


def any_message() -> st.SearchStrategy[bytes]:
    """Generate messages that make sense, that do not, and that are none."""
    values = st.dictionaries(
        st.sampled_from([*CHAT, *EVENTS, "content-encoding", "x"]),
        st.sampled_from([*CHAT.values(), *EVENTS.values(), "gzip", "", "\x00\xff"]),
    )
    contents = st.sampled_from([REQUEST, RESPONSE, FIRST, USAGE, DONE, b"", b"{", b"\x1f\x8b", b"data: {\n\n"])
    return st.one_of(
        st.sampled_from(WHOLE),
        st.builds(headers, st.sampled_from(["request_headers", "response_headers"]), values, end=st.booleans()),
        st.builds(
            body,
            st.sampled_from(["request_body", "response_body"]),
            contents | st.binary(max_size=30),
            end=st.booleans(),
        ),
        st.builds(trailers, st.sampled_from(["request_trailers", "response_trailers"])),
        st.binary(max_size=30),
    )


@given(st.lists(any_message(), max_size=12), st.dictionaries(st.sampled_from(["x_llmproxy_path"]), st.text(max_size=9)))
def test_any_messages_in_any_order(messages: list[bytes], initial_metadata: dict[str, str]) -> None:
    """Nothing raises or is a fault of ours; each message has a reply that fits its phase and changes nothing."""
    server = Server()
    replies = server.talk(messages, **initial_metadata)
    assert len(replies) == len(messages)
    for message, reply in zip(messages, replies, strict=True):
        parsed = ProcessingResponse.FromString(reply)
        if parsed.WhichOneof("response") is None:
            assert reply == b""
            continue
        phase = ProcessingRequest.FromString(message).WhichOneof("request")
        assert phase in PHASES
        assert parsed.WhichOneof("response") == phase
        assert reply.startswith((WATCH[str(phase)], UNCHANGED[str(phase)], IGNORE))
    assert server.total("extproc_streams_open") == 0
    for phase in PHASES:
        assert server.total("extproc_errors", phase=phase) == 0
