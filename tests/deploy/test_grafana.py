from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from deploy.grafana import dashboard
from tests.deploy.prometheus import ROOT, run

FOLDER = ROOT / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads(dashboard.FILE.read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}

ALL = {"namespace": ".*", "workload": ".*", "model": ".*", "__rate_interval": "1m"}
ONE = {"namespace": "default", "workload": "sleep", "model": "(qwen-turbo|qwen-thinking)", "__rate_interval": "1m"}


def substituted(expression: str, values: dict[str, str]) -> str:
    """Put values for Grafana's variables."""
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)


def test_file_is_its_source() -> None:
    """The dashboard's JSON is what its source makes."""
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.text()


def test_panels_are_distinct() -> None:
    """No two panels have one number or one place, and every panel has a title and a query."""
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(set(numbers)) == len(DASHBOARD["panels"])
    assert all(panel["title"] and panel["targets"] for panel in PANELS)


def test_provisioning() -> None:
    """Grafana finds the dashboard where compose mounts it, and asks the Prometheus that compose runs."""
    provider = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "extproc.yaml").read_text(encoding="utf-8"))
    assert [item["options"]["path"] for item in provider["providers"]] == ["/var/lib/grafana/dashboards"]
    source = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))
    assert [(item["type"], item["url"]) for item in source["datasources"]] == [("prometheus", "http://prometheus:9090")]
    prometheus = yaml.safe_load(Path(ROOT, "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    assert source["datasources"][0]["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    jobs = [job["job_name"] for job in prometheus["scrape_configs"]]
    assert [option["value"] for option in VARIABLES["source"]["options"]] == jobs


async def test_every_panel_shows_something() -> None:
    """Every query, for all and for chosen callers and models, by both sources, shows numbers of a real run, not only 0.

    The run has calls of every kind, and times without extproc and with one that hangs.
    """
    queries = {
        f"{panel['title']} / {target['legendFormat']} / {number} / {source}": substituted(
            target["expr"], {**values, "source": source}
        )
        for panel in PANELS
        for target in panel["targets"]
        for number, values in enumerate((ALL, ONE))
        for source in ("extproc", "envoy")
    }
    async with run() as running, running.serving():
        assert await running.shown(queries) == {}
        # A label that a legend names is there.
        for panel in PANELS:
            for target in panel["targets"]:
                found = await running.query(substituted(target["expr"], {**ALL, "source": "extproc"}))
                for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                    assert all(label in labels for labels, _ in found), (panel["title"], label)
        # The variables offer what there is.
        offered = {}
        for name in ("namespace", "workload", "model"):
            form = re.fullmatch(r"label_values\((.+), (\w+)\)", VARIABLES[name]["query"]["query"])
            assert form
            match, label = substituted(form[1], ALL), form[2]
            offered[name] = set(await running.api(f"label/{label}/values", **{"match[]": match}))
        expected = {"namespace": {"default"}, "workload": {"sleep"}}
        # Of the call that came while extproc hung, it knows that there was one.
        assert offered == {**expected, "model": {"qwen-turbo", "qwen-thinking", "made-up-1", "other", "unknown"}}
