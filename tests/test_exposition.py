from __future__ import annotations

import http.client
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extproc import exposition
from extproc.core.facts import Facts, Outcome, Record, Usage, UsageStatus
from extproc.exposition import MetricsServer
from extproc.listening import bound, shown
from extproc.metrics import Labels, Metrics
from tests.samples import total

TOKENS = (
    "asm_llm_proxy_prompt_tokens",
    "asm_llm_proxy_completion_tokens",
    "asm_llm_proxy_cached_prompt_tokens",
    "asm_llm_proxy_cache_creation_prompt_tokens",
    "asm_llm_proxy_reasoning_completion_tokens",
)
CALL = {
    "llmproxy_source_workload": "sleep",
    "llmproxy_source_workload_namespace": "default",
    "llmproxy_destination_service": "api.openai.com",
    "llmproxy_model": "gpt-4o-mini",
}
COUNTERS = (*TOKENS, "asm_llm_proxy_requests", "extproc_messages", "extproc_errors", "extproc_gaps")
HISTOGRAMS = (
    "gen_ai_client_token_usage",
    "gen_ai_server_request_duration_seconds",
    "gen_ai_server_time_to_first_token_seconds",
    "gen_ai_server_time_per_output_token_seconds",
    "extproc_message_seconds",
)
GAUGES = ("extproc_streams_open", "extproc_build_info")


def recorded() -> Metrics:
    """Return metrics with one exchange in them that has everything an exchange can have."""
    metrics = Metrics()
    usage = Usage(19, 10, 29, 8, 4, 6)
    facts = Facts("openai", "chat_completions", "chat", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", usage)
    facts.usage_status, facts.streaming = UsageStatus.REPORTED, True
    facts.time_to_first_token, facts.time_per_output_token = 0.2, 0.01
    record = Record(facts, Outcome.COMPLETE, 200, 1.5)
    metrics.record(record, Labels("sleep", "default", "api.openai.com", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"))
    metrics.message("request_headers", 0.0001)
    metrics.error("request_headers")
    metrics.overflow("model")
    return metrics


@contextmanager
def serving(metrics: Metrics, address: str = "127.0.0.1:0") -> Iterator[MetricsServer]:
    """Serve metrics."""
    server = MetricsServer(bound(address), metrics.exposition)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def server() -> Iterator[MetricsServer]:
    """Serve metrics with one exchange in them."""
    with serving(recorded()) as server:
        yield server


def address_of(server: MetricsServer) -> tuple[str, int]:
    """Return where a server listens."""
    host, port, *_ = server.listener.getsockname()
    return host, port


def ask(
    server: MetricsServer, method: str = "GET", path: str = "/metrics", body: bytes | None = None
) -> tuple[int, dict[str, str], str]:
    """Make a request; return the status, the headers and the body."""
    connection = http.client.HTTPConnection(*address_of(server), timeout=30)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read().decode()
    finally:
        connection.close()


def test_classic_text_format(server: MetricsServer) -> None:
    """What is served is Prometheus's classic text format, and says so."""
    status, headers, text = ask(server)
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["content-length"] == str(len(text.encode()))
    assert list(text_string_to_metric_families(text))
    assert not text.endswith("# EOF\n")


def test_names(server: MetricsServer) -> None:
    """No counter of ours has the suffix `_total`, and no metric a sample of its own for when it was made."""
    text = ask(server)[2]
    names = re.findall(r"^(?:# \w+ )?(\w+)", text, re.MULTILINE)
    assert not [name for name in names if name.endswith(("_total", "_created")) and not name.startswith("process_")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "counter") for name in (*COUNTERS, "extproc_label_overflows")]
    + [(name, "histogram") for name in HISTOGRAMS]
    + [(name, "gauge") for name in GAUGES],
)
def test_each_metric(server: MetricsServer, name: str, kind: str) -> None:
    """Every metric of the contract is there under its very name, with its type, a help text and a sample."""
    text = ask(server)[2]
    assert f"\n# TYPE {name} {kind}\n" in f"\n{text}"
    assert re.search(rf"^# HELP {name} .+", text, re.MULTILINE)
    sample = f"{name}_count" if kind == "histogram" else name
    assert re.search(rf"^{sample}[ {{]", text, re.MULTILINE)
    assert total(text, sample) is not None


@pytest.mark.parametrize(("name", "tokens"), list(zip(TOKENS, (19, 10, 8, 4, 6), strict=True)))
def test_tokens(server: MetricsServer, name: str, tokens: int) -> None:
    """Each token counter has exactly the four labels of the contract."""
    labels = ",".join(f'{label}="{value}"' for label, value in sorted(CALL.items()))
    assert f"\n{name}{{{labels}}} {tokens}.0\n" in ask(server)[2]


def test_requests(server: MetricsServer) -> None:
    """Requests have the same four labels, and how they ended."""
    labels = {**CALL, "outcome": "complete", "usage": "reported", "response_code": "200"}
    assert total(ask(server)[2], "asm_llm_proxy_requests", **labels) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="process metrics are read from /proc")
def test_process_metrics(server: MetricsServer) -> None:
    """The server's memory and processor time are there, where the system tells them."""
    assert (total(ask(server)[2], "process_resident_memory_bytes") or 0) > 0


def test_query(server: MetricsServer) -> None:
    """A query, as some scrapers add one, does not matter."""
    assert ask(server, path="/metrics?a=b")[0] == 200


def test_head(server: MetricsServer) -> None:
    """HEAD answers as GET does, without the body."""
    status, headers, text = ask(server, "HEAD")
    assert (status, text) == (200, "")
    assert int(headers["content-length"]) > 0
    assert headers["content-type"] == ask(server)[1]["content-type"]


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metric", "/%2e%2e/etc/passwd", "*"])
def test_elsewhere(server: MetricsServer, path: str) -> None:
    """Elsewhere there is nothing but a word where the metrics are."""
    status, _, text = ask(server, path=path)
    assert (status, text) == (404, "metrics are at /metrics\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods(server: MetricsServer, method: str) -> None:
    """Metrics can be read, and nothing else."""
    status, _, text = ask(server, method, body=b"x" * 1000)
    assert (status, text) == (405, "only GET is allowed\n")


def test_slow_client_holds_up_nobody(server: MetricsServer) -> None:
    """While one client is in the middle of its request, others are answered; so is it when it goes on."""
    with socket.create_connection(address_of(server), timeout=30) as slow:
        slow.sendall(b"GET /metr")
        assert ask(server)[0] == 200
        slow.sendall(b"ics HTTP/1.0\r\n\r\n")
        assert slow.recv(16).startswith(b"HTTP/1.0 200 OK")


@pytest.mark.parametrize("sent", [b"", b"GET /metr", b"\x16\x03\x01\x00garbage\r\n\r\n"])
def test_odd_clients_leave_no_trace(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], sent: bytes
) -> None:
    """A client that says nothing, too little or nonsense is let go in time, and not worth a line on stderr."""
    monkeypatch.setattr(exposition._Quiet, "timeout", 0.05)  # noqa: SLF001 - not worth a setting
    with serving(Metrics()) as server:
        with socket.create_connection(address_of(server), timeout=30) as client:
            client.sendall(sent)
            while client.recv(1024):
                pass
        assert ask(server)[0] == 200
    assert capfd.readouterr() == ("", "")


def test_closed() -> None:
    """After it is closed nobody listens, and the address is free at once."""
    with serving(Metrics()) as server:
        address = address_of(server)
        ask(server)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    with serving(Metrics(), "{}:{}".format(*address)) as server:
        assert ask(server)[0] == 200


def test_port_in_use(server: MetricsServer) -> None:
    """A port that somebody listens on is refused."""
    with pytest.raises(OSError, match="Address already in use"):
        bound("{}:{}".format(*address_of(server)))


def has_ipv6() -> bool:
    """Tell whether this host has an IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this host has no IPv6")
def test_ipv6() -> None:
    """An IPv6 address in brackets is one to listen on."""
    with serving(recorded(), "[::1]:0") as server:
        assert shown("[::1]:0", server.listener) == f"[::1]:{address_of(server)[1]}"
        assert ask(server)[0] == 200


def test_host_name() -> None:
    """A host's name is one to listen on."""
    with serving(Metrics(), "localhost:0") as server:
        assert ask(server)[0] == 200


def test_labels_cannot_break_it() -> None:
    """Whatever is in a label, the text stays readable, and the label is what it was."""
    metrics = Metrics()
    odd = 'a\\b"c\nd_total{x="é模"} 1'
    facts = Facts("openai", "embeddings", "embeddings", odd)
    metrics.record(Record(facts, Outcome.ABORTED, 0, 0.1), Labels(odd, odd, odd, odd, odd))
    with serving(metrics) as server:
        text = ask(server)[2]
    assert total(text, "asm_llm_proxy_requests", llmproxy_model=odd, response_code="0") == 1
