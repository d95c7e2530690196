"""The dashboard: what it shows, and how that becomes Grafana's JSON.

`python deploy/grafana/dashboard.py` writes dashboards/llm-calls.json; a test keeps the two equal.

Tokens and calls come from the recording rules (deploy/prometheus/rules), which also see the first call of a series,
always over 5 minutes; the rest is over Grafana's $__rate_interval.
"""
# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "dashboards" / "llm-calls.json"

Json = dict[str, Any]

WHO = (
    'llmproxy_source_workload_namespace=~"$namespace", llmproxy_source_workload=~"$workload", llmproxy_model=~"$model"'
)
MODEL = 'gen_ai_request_model=~"$model"'

PER_MINUTE = "short"
SHARE = "percentunit"
SECONDS = "s"
COUNT = "none"


def tokens(by: str) -> str:
    """Return tokens per minute, as the chosen source counts them."""
    return f'sum by ({by}) (llmproxy_call:tokens:per_minute{{job="$source", {WHO}}})'


def calls(by: str, which: str = "") -> str:
    """Return calls per minute."""
    return f"sum by ({by}) (llmproxy_call:requests:per_minute{{{which}{WHO}}})"


def share(part: str, whole: str) -> str:
    """Return a part of a whole, both sums: 0 while there is no part, and nothing while there is no whole."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def share_of_tokens(part: str, whole: str) -> str:
    """Return a part that only extproc counts, of the tokens that it counts."""
    return share(
        f'sum by (llmproxy_model) (llmproxy_call:token_parts:per_minute{{type="{part}", {WHO}}})',
        f'sum by (llmproxy_model) (llmproxy_call:tokens:per_minute{{job="extproc", type="{whole}", {WHO}}})',
    )


def share_of_calls(part: str, whole: str = "") -> str:
    """Return some of the calls, by model."""
    return share(calls("llmproxy_model", part), calls("llmproxy_model", whole))


def quantiles(histogram: str, by: str, which: str, *levels: float) -> dict[str, str]:
    """Return quantiles of a histogram, by what the legend of each shows."""
    buckets = f"sum by ({by}, le) (rate({histogram}_bucket{{{which}}}[$__rate_interval]))"
    return {f"{{{{{by}}}}} p{level * 100:g}": f"histogram_quantile({level}, {buckets})" for level in levels}


def per_minute(counter: str, by: str) -> str:
    """Return how much a counter grows in a minute."""
    return f"sum by ({by}) (rate({counter}[$__rate_interval])) * 60"


@dataclass(frozen=True)
class Panel:
    """A chart. Its queries are by what the legend shows."""

    title: str
    unit: str
    queries: Mapping[str, str]
    text: str = ""
    stacked: bool = False


ROWS: Mapping[str, Sequence[Panel]] = {
    "Tokens": [
        Panel("Tokens per minute by model", PER_MINUTE, {"{{llmproxy_model}}": tokens("llmproxy_model")}, stacked=True),
        Panel(
            "Tokens per minute by workload",
            PER_MINUTE,
            {
                "{{llmproxy_source_workload_namespace}}/{{llmproxy_source_workload}}": tokens(
                    "llmproxy_source_workload_namespace, llmproxy_source_workload"
                )
            },
            stacked=True,
        ),
        Panel(
            "Tokens per minute by destination",
            PER_MINUTE,
            {"{{llmproxy_destination_service}}": tokens("llmproxy_destination_service")},
            stacked=True,
        ),
        Panel("Input and output", PER_MINUTE, {"{{type}}": tokens("type")}, "Tokens per minute."),
        Panel(
            "Cached share of the input",
            SHARE,
            {"{{llmproxy_model}}": share_of_tokens("cached_prompt", "prompt")},
            "Input tokens that the provider read from its cache.",
        ),
        Panel(
            "Reasoning share of the output",
            SHARE,
            {"{{llmproxy_model}}": share_of_tokens("reasoning_completion", "completion")},
            "Output tokens that were spent on reasoning.",
        ),
        Panel(
            "Tokens per minute by provider",
            PER_MINUTE,
            {
                "{{gen_ai_provider_name}} {{gen_ai_token_type}}": (
                    f"sum by (gen_ai_provider_name, gen_ai_token_type) (llmproxy_provider:tokens:per_minute{{{MODEL}}})"
                )
            },
            "Of all workloads. The provider is the format that was spoken.",
        ),
        Panel(
            "Both sources",
            PER_MINUTE,
            {"{{job}}": f"sum by (job) (llmproxy_call:tokens:per_minute{{{WHO}}})"},
            "Tokens per minute as extproc and as Envoy count them: two lines that should lie on each other.",
        ),
    ],
    "Calls": [
        Panel(
            "Calls per minute by model and outcome",
            PER_MINUTE,
            {"{{llmproxy_model}} {{outcome}}": calls("llmproxy_model, outcome")},
            stacked=True,
        ),
        Panel(
            "Success rate",
            SHARE,
            {"{{llmproxy_model}}": share_of_calls('outcome="complete", ', 'outcome=~"complete|error", ')},
            "Of the calls that came to an end, those without an error.",
        ),
        Panel(
            "Errors per minute by response code",
            PER_MINUTE,
            {"{{llmproxy_model}} {{response_code}}": calls("llmproxy_model, response_code", 'outcome="error", ')},
            "200 is an error in the middle of a stream.",
        ),
        Panel(
            "Share without usage",
            SHARE,
            {"{{llmproxy_model}}": share_of_calls('outcome="complete", usage="missing", ', 'outcome="complete", ')},
            "Of the complete calls, those whose tokens nobody reported: they are paid for and not counted.",
        ),
        Panel(
            "Share broken off",
            SHARE,
            {"{{llmproxy_model}}": share_of_calls('outcome="aborted", ')},
            "The client or the provider went away.",
        ),
    ],
    "Latency (of all workloads)": [
        Panel(
            "Duration",
            SECONDS,
            quantiles(
                "gen_ai_server_request_duration_seconds",
                "gen_ai_request_model",
                f'error_type="", {MODEL}',
                0.5,
                0.95,
            ),
            "Of complete calls.",
        ),
        Panel(
            "Mean duration by provider",
            SECONDS,
            {
                "{{gen_ai_provider_name}}": " / ".join(
                    "sum by (gen_ai_provider_name) (rate(gen_ai_server_request_duration_seconds_"
                    f'{part}{{error_type="", {MODEL}}}[$__rate_interval]))'
                    for part in ("sum", "count")
                )
            },
            "Of complete calls.",
        ),
        Panel(
            "Time to first token",
            SECONDS,
            quantiles("gen_ai_server_time_to_first_token_seconds", "gen_ai_request_model", MODEL, 0.5, 0.95),
            "Of streams.",
        ),
        Panel(
            "Time per output token",
            SECONDS,
            quantiles("gen_ai_server_time_per_output_token_seconds", "gen_ai_request_model", MODEL, 0.5, 0.95),
            "Of streams, after the first token.",
        ),
    ],
    "extproc": [
        Panel(
            "Envoy going on without extproc",
            PER_MINUTE,
            {
                "{{instance}} failed open": per_minute("envoy_http_ext_proc_failure_mode_allowed", "instance"),
                "{{instance}} timed out": per_minute("envoy_http_ext_proc_message_timeouts", "instance"),
                "{{instance}} stream failed": per_minute("envoy_http_ext_proc_streams_failed", "instance"),
            },
            "Exchanges per minute that Envoy let pass unseen, and why. A time-out also counts as failed open.",
        ),
        Panel(
            "Time to answer a message",
            SECONDS,
            quantiles("extproc_message_seconds", "phase", "", 0.5, 0.99),
        ),
        Panel("Messages per minute", PER_MINUTE, {"{{phase}}": per_minute("extproc_messages", "phase")}),
        Panel("Streams open", COUNT, {"{{instance}}": "sum by (instance) (extproc_streams_open)"}),
        Panel(
            "Faults and overflows since the start",
            COUNT,
            {
                "faults": "sum(extproc_errors) or vector(0)",
                "{{label}} became other": "sum by (label) (extproc_label_overflows)",
            },
            "Faults should stay at 0.",
        ),
        Panel(
            "Gaps per minute",
            PER_MINUTE,
            {"{{gap}}": per_minute("extproc_gaps", "gap")},
            "Exchanges of which something is not known; docs/operations.md says what each means.",
        ),
        Panel(
            "CPU",
            COUNT,
            {"{{instance}}": 'rate(process_cpu_seconds_total{job="extproc"}[$__rate_interval])'},
            "Cores in use.",
        ),
        Panel("Memory", "bytes", {"{{instance}}": 'process_resident_memory_bytes{job="extproc"}'}),
    ],
}

CALLS = "asm_llm_proxy_requests"
WORKLOADS = f'{CALLS}{{llmproxy_source_workload_namespace=~"$namespace"}}'
MODELS = f'{CALLS}{{llmproxy_source_workload_namespace=~"$namespace", llmproxy_source_workload=~"$workload"}}'

VARIABLES: Sequence[tuple[str, str, str]] = (
    ("namespace", "Namespace", f"label_values({CALLS}, llmproxy_source_workload_namespace)"),
    ("workload", "Workload", f"label_values({WORKLOADS}, llmproxy_source_workload)"),
    ("model", "Model", f"label_values({MODELS}, llmproxy_model)"),
)

DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, WIDTH, HEIGHT = 24, 8, 8


def dashboard() -> Json:
    """Return the dashboard as Grafana reads it."""
    return {
        "uid": "extproc-llm-calls",
        "title": "Calls to language models",
        "description": "Which workload uses which model for how many tokens. Needs the rules of deploy/prometheus.",
        "tags": ["extproc", "llm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_data_source(), _source(), *(_variable(*variable) for variable in VARIABLES)]},
        "panels": _panels(),
    }


def _data_source() -> Json:
    return {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus"}


def _source() -> Json:
    options = [{"text": job, "value": job, "selected": job == "extproc"} for job in ("extproc", "envoy")]
    return {
        "type": "custom",
        "name": "source",
        "label": "Tokens counted by",
        "description": "extproc and Envoy count the same tokens.",
        "query": "extproc,envoy",
        "options": options,
        "current": options[0],
    }


def _variable(name: str, label: str, query: str) -> Json:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATA_SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels() -> list[Json]:
    found: list[Json] = []
    top = 0
    for title, panels in ROWS.items():
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        found.append({"type": "row", "id": len(found) + 1, "title": title, "collapsed": False, "gridPos": place})
        top += 1
        for number, panel in enumerate(panels):
            line, column = divmod(number, COLUMNS // WIDTH)
            place = {"x": column * WIDTH, "y": top + line * HEIGHT, "w": WIDTH, "h": HEIGHT}
            found.append(_panel(len(found) + 1, panel, place))
        top += -(-len(panels) * WIDTH // COLUMNS) * HEIGHT
    return found


def _panel(number: int, panel: Panel, place: Json) -> Json:
    custom: Json = {"fillOpacity": 20, "stacking": {"mode": "normal"}} if panel.stacked else {"fillOpacity": 0}
    limits = {"min": 0, "max": 1} if panel.unit == SHARE else {"min": 0}
    return {
        "type": "timeseries",
        "id": number,
        "title": panel.title,
        "description": panel.text,
        "datasource": DATA_SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **limits, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + target), "datasource": DATA_SOURCE, "expr": query, "legendFormat": legend}
            for target, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def text() -> str:
    """Return the content of the file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
