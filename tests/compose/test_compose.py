"""The whole outcome on the stack of deploy/docker-compose.yml; `make compose-test` runs it.

One stack for all tests, in the order in which they stand: those that end a container come last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from extproc.demo import provider
from extproc.demo.run import CALLS, HOST, Answer, Call, DemoError, check
from tests.compose.stack import FOLDER, Stack, until, until_none
from tests.samples import total

pytestmark = pytest.mark.timeout(900)  # the first one builds the images

SERVICES = ("envoy", "extproc", "provider", "prometheus")
QUESTION = Call("a question", "What is a service mesh?", model="qwen-turbo")
FACTS = ("request_model", "request_prompt_tokens", "request_completion_tokens", "usage")

# What has no series in a run like this: the mock provider tells no parts of tokens.
UNSEEN_RULE = "llmproxy_call:token_parts:per_minute"

Calls = list[tuple[Answer, dict[str, Any]]]


@pytest.fixture(scope="session")
def calls(stack: Stack) -> Calls:
    """Make the demo's calls; return for each what its client saw and its line in the access log."""
    return [stack.call(call) for call in CALLS]


@pytest.fixture(scope="session")
def busy(stack: Stack, calls: Calls) -> None:
    """Let something happen: the same calls again, after Prometheus has seen the first ones, and one that is refused."""
    scraped(stack, calls, "completion_tokens")
    for call in CALLS:
        stack.call(call)
    refused = httpx.post(stack.url("envoy", 10000), headers={"host": HOST}, json={"model": "qwen-turbo"})
    assert refused.status_code == 400


def scraped(stack: Stack, calls: Calls, kind: str) -> None:
    """Wait until Prometheus has the tokens that the clients saw, from both that count them."""
    expected = float(sum(answer.usage[kind] for answer, _ in calls if answer.usage))

    def wrong() -> dict[str, float]:
        found = {"extproc": 0.0, "envoy": 0.0}
        for item in stack.query(f"sum by (job) (asm_llm_proxy_{kind})"):
            found[item["metric"]["job"]] = float(item["value"][1])
        return {job: value for job, value in found.items() if value != expected}

    until_none(wrong)


def rules(stack: Stack) -> list[dict[str, Any]]:
    """Return what Prometheus knows of its rules."""
    groups = stack.get("prometheus", 9090, "/api/v1/rules").json()["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def without_data(stack: Stack, expressions: Iterable[str]) -> list[str]:
    """Return the expressions to which Prometheus has no number to answer."""
    return [
        expression
        for expression in expressions
        if all(item["value"][1] in ("NaN", "+Inf", "-Inf") for item in stack.query(expression))
    ]


def shown() -> Iterator[str]:
    """Yield what the dashboard asks Prometheus, as Grafana would ask with nothing chosen."""
    dashboard = json.loads((FOLDER / "grafana" / "dashboards" / "llm-calls.json").read_text())
    everything = {"$__rate_interval": "5m", "$namespace": ".*", "$workload": ".*", "$model": ".*"}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.sub(r"label_values\((.*), (\w+)\)", r"count by (\2) (\1)", variable["query"]["query"])
            yield filled(asked, everything)
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            for source in ("extproc", "envoy"):
                yield filled(target["expr"], {**everything, "$source": source})


def filled(expression: str, variables: Mapping[str, str]) -> str:
    """Put in values for Grafana's variables."""
    for name, value in variables.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def test_every_part_says_what_the_client_saw(stack: Stack, calls: Calls) -> None:
    """Envoy's access log, its counters and extproc's have the models and tokens that the clients saw, and no others."""

    def reason() -> str:
        ours, envoys = stack.get("extproc", 9464, "/metrics"), stack.get("envoy", 9901, "/stats/prometheus")
        try:
            check([answer for answer, _ in calls], [line for _, line in calls], ours.text, envoys.text)
        except DemoError as error:
            return str(error)
        return ""

    # The last call may be logged before it is counted.
    until_none(reason, 10)


def test_only_this_machine_can_reach_it(stack: Stack) -> None:
    """Every published port is on 127.0.0.1, and extproc's own for Envoy is not published."""
    bindings = {service: stack.inspect(service)["NetworkSettings"]["Ports"] for service in SERVICES}
    published = {(service, port) for service, ports in bindings.items() for port, on in ports.items() if on}
    assert published == {
        ("envoy", "10000/tcp"),
        ("envoy", "9901/tcp"),
        ("extproc", "9464/tcp"),
        ("prometheus", "9090/tcp"),
    }
    hosts = {item["HostIp"] for ports in bindings.values() for on in ports.values() for item in on or ()}
    assert hosts == {"127.0.0.1"}


@pytest.mark.parametrize("service", SERVICES)
def test_containers_have_no_power(stack: Stack, service: str) -> None:
    """No container is root, writes to its own file system, has a capability, or can get one."""
    found = stack.inspect(service)
    assert stack.compose("exec", "-T", service, "id", "-u").strip() != "0"
    host = found["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges:true"])


@pytest.mark.parametrize("service", ["extproc", "provider"])
def test_image_says_who_it_is(stack: Stack, service: str) -> None:
    """Our images name their user by number, as Kubernetes wants it, and say how to see that they are healthy."""
    found = stack.inspect(service)
    user, _, group = found["Config"]["User"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert found["State"]["Health"]["Status"] == "healthy"


def test_image_has_only_what_runs(stack: Stack) -> None:
    """The server's image has no compiler, no cache of pip's, no pip beside our code, and no library of the tools."""
    script = """
        for command in cc gcc g++ clang make ld; do command -v $command; done
        find / -xdev -path '*/.cache/pip' -o -xdev -name 'pip' -path '/opt/*' 2>/dev/null
        for module in aiohttp envoy envoy_data_plane pytest grpc_tools; do
          python -c "import $module" 2>/dev/null && echo $module
        done
        true
    """
    assert stack.compose("exec", "-T", "extproc", "sh", "-c", script).split() == []


def test_image_has_the_tested_versions(stack: Stack) -> None:
    """Every library in the server's image is of the version in constraints.txt, with which the tests run."""
    script = "from importlib.metadata import distributions as d; print(*(f'{i.name}=={i.version}' for i in d()))"
    found = {item.lower() for item in stack.compose("exec", "-T", "extproc", "python", "-c", script).split()}
    pinned = set((FOLDER.parent / "constraints.txt").read_text().lower().split())
    assert {item for item in found if not item.startswith("extproc==")} <= pinned
    assert any(item.startswith("grpcio==") for item in found)


def test_prometheus_scrapes_both(stack: Stack) -> None:
    """Prometheus reaches extproc and Envoy, under the names that the rules use."""
    health: Mapping[str, str] = {}

    def up() -> bool:
        nonlocal health
        targets = stack.get("prometheus", 9090, "/api/v1/targets").json()["data"]["activeTargets"]
        health = {target["labels"]["job"]: target["health"] for target in targets}
        return set(health.values()) == {"up"}

    until(up)
    assert set(health) == {"extproc", "envoy"}


@pytest.mark.parametrize("kind", ["prompt_tokens", "completion_tokens"])
def test_prometheus_counts(stack: Stack, calls: Calls, kind: str) -> None:
    """Prometheus answers with the tokens that the clients saw, from both that count them."""
    scraped(stack, calls, kind)


@pytest.mark.usefixtures("busy")
def test_rules(stack: Stack) -> None:
    """Prometheus evaluates every rule without an error, and every recording rule has recorded something."""
    recorded = []
    for rule in rules(stack):
        if rule["type"] == "recording" and rule["name"] != UNSEEN_RULE:
            labels = [f'{name}="{value}"' for name, value in rule.get("labels", {}).items()]
            recorded.append(f"{rule['name']}{{{', '.join(labels)}}}")
    assert recorded
    until_none(lambda: without_data(stack, recorded))
    assert {(rule["type"], rule["health"], rule.get("lastError", "")) for rule in rules(stack)} == {
        ("recording", "ok", ""),
        ("alerting", "ok", ""),
    }


@pytest.mark.usefixtures("busy")
def test_dashboard(stack: Stack) -> None:
    """Every query of the dashboard, and of its variables, has an answer."""
    until_none(lambda: without_data(stack, list(shown())))


def test_drains(stack: Stack) -> None:
    """A call that is open when extproc is stopped is still counted; then extproc ends by itself, in order."""
    asked = {
        "model": "qwen-turbo",
        "messages": [{"role": "user", "content": "word " * 60}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    url, before = stack.url("envoy", 10000), len(stack.access_log())
    try:
        with httpx.stream("POST", url + provider.PATH, headers={"host": HOST}, json=asked) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
            stack.compose("stop", "extproc")
            assert [line for line in lines if line][-1] == "data: [DONE]"
        (line,) = until(lambda: stack.access_log()[before:])
        assert [line[name] for name in FACTS] == ["qwen-turbo", 60, 62, "reported"]
        assert stack.inspect("extproc")["State"]["ExitCode"] == 0
    finally:
        stack.start("extproc")


def test_killed_and_back(stack: Stack) -> None:
    """Without extproc calls succeed as before, with null for what is not known; when it is back, they are counted."""

    def facts() -> list[object]:
        answer, line = stack.call(QUESTION)
        assert answer.usage is not None
        assert line["response_code"] == 200
        return [line[name] for name in FACTS]

    stack.compose("kill", "extproc")
    try:
        for _ in range(3):
            assert facts() == [None, None, None, None]
    finally:
        stack.start("extproc")
    # Envoy looks the name up and connects again when it is time.
    assert until(lambda: [found for found in [facts()] if any(found)]) == [["qwen-turbo", 5, 7, "reported"]]
    metrics = until(
        lambda: [text for text in [stack.get("extproc", 9464, "/metrics").text] if "qwen-turbo" in text], 10
    )
    assert total(metrics[0], "asm_llm_proxy_requests", llmproxy_model="qwen-turbo") == 1
