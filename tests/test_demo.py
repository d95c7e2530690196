from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from extproc.demo import run
from extproc.demo.processes import Process, ProcessError, started
from extproc.demo.run import CALLS, HOST, Answer, DemoError
from tests.waiting import exit_status, until

linux = pytest.mark.skipif(sys.platform != "linux", reason="children are read from /proc")


@asynccontextmanager
async def demo(*options: str) -> AsyncIterator[Process]:
    """Run `extproc demo`."""
    async with started([sys.executable, "-m", "extproc", "demo", *options]) as process:
        yield process


def children(process: Process) -> list[int]:
    """Return which processes a process has started and not ended."""
    pid = process.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def program(pid: int) -> str:
    """Return the file that a process runs."""
    return Path(f"/proc/{pid}/exe").readlink().name


def runs(pid: int) -> bool:
    """Tell whether a process runs."""
    return Path(f"/proc/{pid}").exists()


async def line_with(process: Process, text: str, start: int = 0) -> int:
    """Wait for a line with a text in it; return its number."""
    number = start
    while text not in await process.line(process.stdout, number):
        number += 1
    return number


async def test_demo() -> None:
    """The demo ends by itself, in success, and shows what it says: log lines, both counters, what was checked."""
    async with demo() as process:
        assert await exit_status(process) == 0
    assert process.stderr == []
    log = [json.loads(line) for line in process.stdout if line.startswith("  {")]
    assert len(log) == len(CALLS)
    assert [line["request_model"] for line in log] == [
        "qwen-1.8b-chat",
        "qwen-turbo",
        "qwen-turbo",
        "qwen-plus",
        "qwen-turbo",
        None,
    ]
    assert {line["authority_for"] for line in log} == {HOST}
    text = "\n".join(line.strip() for line in process.stdout)
    for kind in ("prompt_tokens", "completion_tokens"):
        assert f"\nasm_llm_proxy_{kind}{{" in text
        assert f"\nenvoy_asm_llm_proxy_{kind}{{" in text
    assert "\nasm_llm_proxy_requests{" in text
    assert "\nenvoy_llm_requests_total{" in text
    assert f"Checked\n\n{len(CALLS)} calls: the models and tokens that the client saw are those of" in text


@linux
async def test_keep() -> None:
    """With `--keep` the lines to try work as they stand, and Ctrl-C ends everything."""
    async with demo("--keep") as process:
        number = await line_with(process, "Try it; Ctrl-C ends it")
        number = await line_with(process, "curl", number)
        lines = [shlex.split(await process.line(process.stdout, number + offset)) for offset in range(3)]
        assert [words[0] for words in lines] == ["curl"] * 3
        answer = json.loads(await curl(lines[0]))
        assert answer["model"] == "qwen-turbo"
        shown = await line_with(process, "{", number + 3)
        logged = json.loads(process.stdout[shown])
        assert logged["request_prompt_tokens"] == answer["usage"]["prompt_tokens"]
        assert "envoy_asm_llm_proxy_prompt_tokens" in await curl(lines[1])
        assert "asm_llm_proxy_prompt_tokens" in await curl(lines[2])
        pids = children(process)
        assert len(pids) == 2
        process.process.send_signal(signal.SIGINT)
        assert await exit_status(process) == 0
    assert process.stderr == []
    assert not [pid for pid in pids if runs(pid)]
    with pytest.raises(aiohttp.ClientConnectionError):
        await curl(lines[2])


async def curl(words: list[str]) -> str:
    """Do what a line with `curl` does, up to a pipe."""
    url, *rest = words[1:]
    headers: dict[str, str] = {}
    data = None
    for option, value in zip(rest[::2], rest[1::2], strict=False):
        match option:
            case "-H":
                name, _, content = value.partition(": ")
                headers[name] = content
            case "-d":
                data = value
            case "|":
                break
            case _:
                raise AssertionError(option)
    async with (
        aiohttp.ClientSession() as session,
        session.request("GET" if data is None else "POST", url, headers=headers, data=data) as response,
    ):
        assert response.status == 200
        return await response.text()


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted(number: int) -> None:
    """A signal in the middle of the demo ends everything that it has started."""
    async with demo() as process:
        await until(lambda: len(children(process)) == 2 or process.process.returncode is not None)
        pids = children(process)
        process.process.send_signal(number)
        assert await exit_status(process) != 0
    assert len(pids) == 2
    assert not [pid for pid in pids if runs(pid)]
    assert "Traceback" not in "\n".join(process.stderr)


@linux
async def test_envoy_dies() -> None:
    """A part that ends by itself ends the demo, with a message."""
    async with demo("--keep") as process:
        await line_with(process, "Try it; Ctrl-C ends it")
        (envoy,) = (pid for pid in children(process) if program(pid).startswith("envoy"))
        os.kill(envoy, signal.SIGKILL)
        assert await exit_status(process) == 1
    assert process.stderr[0].startswith("Error: a process has ended")
    assert "Traceback" not in "\n".join(process.stderr)


LABELS = (
    'llmproxy_source_workload="sleep",llmproxy_source_workload_namespace="default",'
    f'llmproxy_destination_service="{HOST}",llmproxy_model="m"'
)
ANSWERS = [Answer("m", {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}), Answer(None, None)]
LOG: list[dict[str, Any]] = [
    {"request_model": "m", "request_prompt_tokens": 3, "request_completion_tokens": 4, "usage": "reported"},
    {"request_model": None, "request_prompt_tokens": None, "request_completion_tokens": None, "usage": None},
]
OURS = f"""\
# TYPE asm_llm_proxy_prompt_tokens counter
asm_llm_proxy_prompt_tokens{{{LABELS}}} 3.0
# TYPE asm_llm_proxy_completion_tokens counter
asm_llm_proxy_completion_tokens{{{LABELS}}} 4.0
# TYPE asm_llm_proxy_requests counter
asm_llm_proxy_requests{{{LABELS},outcome="complete",usage="reported",response_code="200"}} 1.0
"""
ENVOYS = f"""\
# TYPE envoy_asm_llm_proxy_prompt_tokens counter
envoy_asm_llm_proxy_prompt_tokens{{{LABELS}}} 3
# TYPE envoy_asm_llm_proxy_completion_tokens counter
envoy_asm_llm_proxy_completion_tokens{{{LABELS}}} 4
# TYPE envoy_llm_requests_total counter
envoy_llm_requests_total{{model="m",destination_service="{HOST}",response_code="200"}} 1
"""


def test_check_agrees() -> None:
    """Where everybody says what the client saw, the check finds nothing."""
    run.check(ANSWERS, LOG, OURS, ENVOYS)


@pytest.mark.parametrize("position", range(2))
@pytest.mark.parametrize("field", ["request_model", "request_prompt_tokens", "request_completion_tokens"])
def test_check_finds_a_wrong_log_line(field: str, position: int) -> None:
    """A log line that says something else, or says something of what nobody reported, fails the demo."""
    log = deepcopy(LOG)
    log[position][field] = 5
    with pytest.raises(DemoError, match="the access log"):
        run.check(ANSWERS, log, OURS, ENVOYS)


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "requests"])
@pytest.mark.parametrize("text", ["ours", "envoys"])
@pytest.mark.parametrize("change", ["another value", "another model", "missing"])
def test_check_finds_a_wrong_counter(name: str, text: str, change: str) -> None:
    """A counter that says something else, of another model or nothing fails the demo."""

    def changed(line: str) -> str:
        if line.startswith("#") or f"_{name}" not in line:
            return line
        return {
            "another value": line.rpartition(" ")[0] + " 9",
            "another model": line.replace('model="m"', 'model="n"'),
            "missing": "",
        }[change]

    texts = {"ours": OURS, "envoys": ENVOYS}
    texts[text] = "\n".join(changed(line) for line in texts[text].splitlines()) + "\n"
    assert list(text_string_to_metric_families(texts[text]))
    whose = {"ours": "extproc's", "envoys": "Envoy's"}[text]
    with pytest.raises(DemoError, match=f"{whose} {name}"):
        run.check(ANSWERS, LOG, **texts)


def test_check_finds_another_workload() -> None:
    """Tokens that are counted for somebody else are missing."""
    with pytest.raises(DemoError, match="extproc's prompt_tokens"):
        run.check(ANSWERS, LOG, OURS.replace('"sleep"', '"awake"'), ENVOYS)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ProcessError("bad configuration"), "a process has ended:\nbad configuration"),
        (TimeoutError(), "something took too long"),
        (PermissionError(13, "Permission denied", "envoy"), "[Errno 13] Permission denied: 'envoy'"),
    ],
)
def test_what_cannot_run(monkeypatch: pytest.MonkeyPatch, fault: Exception, said: str) -> None:
    """Whatever keeps the demo from running is a message."""

    async def fail(*, keep: bool) -> None:
        assert not keep
        raise fault

    monkeypatch.setattr(run, "_run", fail)
    with pytest.raises(DemoError) as error:
        run.run(keep=False)
    assert str(error.value) == said
