from __future__ import annotations

import asyncio
import re
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tests.deploy.prometheus import FOLDER, SECONDS, Run, rules, run, tool

RECORDED = [rule for rule in rules() if "record" in rule]
ALERTS = [rule for rule in rules() if "alert" in rule]
RULE_FILES = sorted(str(file) for file in (FOLDER / "rules").glob("*.yaml"))
TEST_FILES = sorted(str(file) for file in (FOLDER / "tests").glob("*.yaml"))

# The metrics in an expression; labels have other names.
METRIC = re.compile(r"\b((?:asm_llm_proxy|envoy|extproc|process|gen_ai_server|gen_ai_client)_\w+|llmproxy\w*:[\w:]+)")
LABEL = re.compile(r"\$labels\.(\w+)")


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", str(FOLDER / "prometheus.yml")],
        ["check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES],
        ["test", "rules", *TEST_FILES],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool(arguments: list[str]) -> None:
    """Promtool finds nothing wrong with the configuration and the rules, and the rules do what their tests say."""
    done = subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_tested() -> None:
    """The rules' tests have every recorded name, and see every alert fire."""
    text = "".join(Path(file).read_text(encoding="utf-8") for file in TEST_FILES)
    assert [rule["record"] for rule in RECORDED if rule["record"] not in text] == []
    assert [rule["alert"] for rule in ALERTS if f'alertname="{rule["alert"]}", alertstate="firing"' not in text] == []


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alert_explains_itself(alert: dict[str, dict[str, str]]) -> None:
    """An alert says how severe it is, what is the matter and what to do, and names no label that it does not have."""
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description"}
    tests = yaml.safe_load((FOLDER / "tests" / "alerts.yaml").read_text(encoding="utf-8"))["tests"]
    samples = [sample for test in tests for case in test["promql_expr_test"] for sample in case.get("exp_samples", ())]
    firing = "".join(sample["labels"] for sample in samples if f'alertname="{alert["alert"]}"' in sample["labels"])
    assert set(LABEL.findall("".join(alert["annotations"].values()))) <= set(re.findall(r'(\w+)="', firing))


async def test_rules_on_a_real_run() -> None:
    """On what Prometheus scraped from a real Envoy and extproc, every rule records something and alerts see faults.

    By either source, the tokens that are recorded are those that were counted, from the first call on.
    """
    alerts = {rule["alert"]: rule["expr"] for rule in ALERTS}
    async with run() as running:
        assert await running.shown({"EnvoyFailsOpen": alerts["EnvoyFailsOpen"]}) == {}
        assert [labels["job"] for labels, _ in await running.query(alerts["ExtprocDown"])] == ["extproc"]
        async with running.serving():
            assert (
                await running.shown({f"{rule['record']} {rule.get('labels')}": rule["expr"] for rule in RECORDED}) == {}
            )
            assert await running.shown({rule["record"]: rule["record"] for rule in RECORDED}) == {}
            faults = ("ExtprocErrors", "LabelOverflow", "EnvoyFailsOpen", "ExtprocCannotRead")
            assert await running.shown({name: alerts[name] for name in faults}) == {}
            for expression in alerts.values():
                await running.query(expression)
            known = set(await running.api("label/__name__/values"))
            used = {name for rule in rules() for name in METRIC.findall(rule["expr"])}
            assert used - known == set()
            await _agree(running)


async def _agree(running: Run) -> None:
    """Wait until extproc's and Envoy's tokens, as counted and as recorded, are one number."""
    counted = "sum by (job) (asm_llm_proxy_prompt_tokens) + sum by (job) (asm_llm_proxy_completion_tokens)"
    recorded = "round(5 * sum by (job) (llmproxy_call:tokens:per_minute))"
    seen: dict[tuple[str, str], float] = {}
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            while len(seen) != 4 or len(set(seen.values())) != 1:
                seen = {
                    (expression, labels["job"]): value
                    for expression in (counted, recorded)
                    for labels, value in await running.query(expression)
                }
                await asyncio.sleep(0.1)
    assert len(seen) == 4
    assert set(seen.values()) == {max(seen.values())}
