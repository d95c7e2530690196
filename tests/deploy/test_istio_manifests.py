from __future__ import annotations

import copy
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from betterproto2 import Message
from click.testing import CliRunner
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.envoy.config.route.v3 import Route, VirtualHost
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from extproc.cli import main
from extproc.config.istio import applied
from tests.deploy.envoy_versions import RELEASES
from tests.deploy.istio_options import options
from tests.deploy.istio_patch import Json, Proxy
from tests.deploy.istio_proxy import configuration, manifests

# `stat_prefix` of the stats access logger, for the versions that have nothing else.
pytestmark = pytest.mark.filterwarnings("ignore:Config.stat_prefix is deprecated:DeprecationWarning")

FOLDER = Path(__file__).parents[2] / "deploy" / "istio"
SCHEMAS = {file.stem: json.loads(file.read_text()) for file in Path(__file__).with_name("crds").glob("*.json")}
MESSAGES: dict[str, type[Message]] = {
    "CLUSTER": Cluster,
    "HTTP_FILTER": HttpFilter,
    "NETWORK_FILTER": Filter,
    "VIRTUAL_HOST": VirtualHost,
    "HTTP_ROUTE": Route,
}
ADDRESSES = dict.fromkeys(("provider", "zipkin", "server"), ("127.0.0.1", 1))

ASKED = {
    "as in deploy/istio": (),
    "1.22": ("--istio-version", "1.22"),
    "1.28": ("--istio-version", "1.28", "--gateway", "none"),
    "1.29": ("--istio-version", "1.29", "--workload-selector", "app=a", "--workload-selector", "version=v1"),
    "1.30": ("--istio-version", "1.30.4", "--namespace", "istio-system"),
    "1.31": ("--istio-version", "1.31", "--gateway", "edge/istio=egress", "--gateway-port", "8443"),
    "1.40": ("--istio-version", "1.40"),
    "beside": ("--server-address", "unix:/var/run/llm-proxy/extproc.sock"),
    "hosts": (
        *("--host", "api.anthropic.com", "--host", "vllm.models.svc.cluster.local:8000"),
        *("--host", "llama.models.svc.cluster.local=/v1/chat/completions", "--header", "x-tier=gold"),
        *("--server-address", "counter.tools.svc.example.org:9000"),
    ),
}


def test_the_files_are_what_the_command_writes(tmp_path: Path) -> None:
    """deploy/istio is the output of `extproc config istio --output deploy/istio`."""
    done = CliRunner().invoke(main, ["config", "istio", "--output", str(tmp_path)])
    assert (done.exit_code, done.stderr) == (0, "")
    written = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert {file.name: file.read_text() for file in FOLDER.glob("*.yaml")} == written
    listed = yaml.safe_load(written["kustomization.yaml"])["resources"]
    assert sorted([*listed, "kustomization.yaml", "mesh-config.yaml", "tracing.yaml"]) == sorted(written)


def test_the_readme_explains_every_file() -> None:
    """deploy/istio/README.md has a row for each file, and its example of the command works."""
    text = (FOLDER / "README.md").read_text()
    assert re.findall(r"^\| `([-a-z]+\.yaml)` \|", text, re.MULTILINE) == [
        "providers.yaml",
        "sidecar.yaml",
        "gateway.yaml",
        "telemetry.yaml",
        "metrics.yaml",
        "tracing.yaml",
        "mesh-config.yaml",
        "kustomization.yaml",
    ]
    (example,) = re.findall(r"extproc config istio (--host .*?) --output my-mesh", text, re.DOTALL)
    done = CliRunner().invoke(main, ["config", "istio", *shlex.split(example.replace("\\\n", ""))])
    assert (done.exit_code, done.stderr) == (0, "")


def test_without_a_folder_it_prints_what_can_be_applied() -> None:
    """Standard output is what kustomization.yaml lists."""
    done = CliRunner().invoke(main, ["config", "istio"])
    assert done.exit_code == 0
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    expected = [found for name in listed for found in yaml.safe_load_all((FOLDER / name).read_text())]
    assert list(yaml.safe_load_all(done.output)) == expected


@pytest.mark.parametrize("name", ASKED)
def test_patches_are_of_envoys_api(name: str) -> None:
    """Every patch is a message of Envoy's, in depth; a field that Envoy does not have is an error."""
    patches = _patches(name)
    assert patches
    for patch in patches:
        MESSAGES[patch["applyTo"]].from_dict(patch["patch"]["value"])


def test_an_unknown_field_would_be_seen() -> None:
    """The check above sees one in the depth of a patch."""
    (value,) = [
        patch["patch"]["value"] for patch in _patches("as in deploy/istio") if "disabled" in patch["patch"]["value"]
    ][:1]
    value = copy.deepcopy(value)
    value["typed_config"]["grpc_service"]["envoy_grpc"]["bogus"] = 1
    with pytest.raises(KeyError, match="bogus"):
        HttpFilter.from_dict(value)


@pytest.mark.parametrize("version", SCHEMAS)
@pytest.mark.parametrize("name", ASKED)
def test_manifests_are_of_istios_api(name: str, version: str) -> None:
    """Every manifest fits Istio's schemas, and has no field that they do not have."""
    for manifest in manifests(options(*ASKED[name])):
        if "'formatter'" in str(manifest) and version == "1.22.0":
            continue  # of later versions
        schema = SCHEMAS[version][f"{manifest['apiVersion']} {manifest['kind']}"]
        jsonschema.validate(manifest["spec"], _closed(schema["properties"]["spec"]))
        assert manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}


def test_an_unknown_field_of_a_manifest_would_be_seen() -> None:
    """The check above sees one in the depth of a manifest."""
    schema = SCHEMAS["1.22.0"]["networking.istio.io/v1 DestinationRule"]["properties"]["spec"]
    spec: Json = {"host": "a.b", "trafficPolicy": {"tls": {"mode": "SIMPLE"}}}
    jsonschema.validate(spec, _closed(schema))
    spec["trafficPolicy"]["tls"]["bogus"] = 1
    with pytest.raises(jsonschema.ValidationError, match="bogus"):
        jsonschema.validate(spec, _closed(schema))


@pytest.mark.parametrize("context", ["SIDECAR_OUTBOUND", "GATEWAY"])
@pytest.mark.parametrize("minor", range(22, 36))
def test_each_version_gets_its_variant(minor: int, context: str) -> None:
    """Manifests for all versions come to the same for a proxy as those for its own version; who gets what is fixed."""
    manager = _manager(minor, context)
    assert manager == _manager(minor, context, "--istio-version", f"1.{minor}")
    (ours,) = [found["typed_config"] for found in manager["http_filters"] if found["name"] == "asm-llm-proxy"]
    streamed = minor >= 30
    assert (ours["processing_mode"]["request_body_mode"] == "STREAMED") is streamed
    assert (ours["processing_mode"]["response_body_mode"] == "STREAMED") is streamed
    assert ours.get("allow_content_length_header", False) is streamed
    counters = [log["typed_config"] for log in manager["access_log"] if log["name"] == "envoy.access_loggers.stats"]
    assert len(counters) == (2 if minor >= 30 else 0)
    assert [("stat_prefix" in log, "stats_scope" in log) for log in counters] == [(minor < 32, minor >= 32)] * len(
        counters
    )


def test_only_the_named_hosts() -> None:
    """The filter is off but for the virtual hosts that are named."""
    proxy = Proxy("1.30.0", "SIDECAR_OUTBOUND")
    listener = configuration(options(), proxy, ADDRESSES)["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    names = [found["name"] for found in manager["http_filters"]]
    assert names[-2:] == ["asm-llm-proxy", "envoy.filters.http.router"]
    assert manager["http_filters"][-2]["disabled"] is True
    on = [host["name"] for host in manager["route_config"]["virtual_hosts"] if "typed_per_filter_config" in host]
    assert on == ["dashscope.aliyuncs.com:80", "api.openai.com:80"]


def test_other_workloads_are_let_alone() -> None:
    """A selector and a namespace keep the patches from all other proxies."""
    asked = options("--workload-selector", "app=sleep")
    for proxy in (
        Proxy("1.30.0", "SIDECAR_OUTBOUND", labels={"app": "other"}),
        Proxy("1.30.0", "SIDECAR_OUTBOUND", namespace="other", labels={"app": "sleep"}),
        Proxy("1.30.0", "SIDECAR_INBOUND", labels={"app": "sleep"}),
        Proxy("1.30.0", "GATEWAY", labels={"app": "sleep"}),
        Proxy("1.21.0", "GATEWAY", namespace="istio-system"),
    ):
        text = json.dumps(configuration(asked, proxy, ADDRESSES)["static_resources"]["listeners"])
        assert "ExternalProcessor" not in text


def test_the_releases_that_run_are_consecutive() -> None:
    """The real Envoys are those of consecutive versions of Istio, up to one that is still to come."""
    assert [release.istio_minor[1] for release in RELEASES] == list(range(28, 33))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "*.openai.com"], "without wildcards"),
        (["--host", "localhost"], "a full host name"),
        (["--host", "api.openai.com:0"], "1 to 65535"),
        (["--host", "api.openai.com:80x"], "1 to 65535"),
        (["--host", "api.openai.com="], "HOST[:PORT][=PATH]"),
        (["--host", "api.openai.com=v1"], "HOST[:PORT][=PATH]"),
        (["--host", "api.openai.com", "--host", "api.openai.com:81"], "each host once"),
        (["--namespace", "Default"], "lower-case letters"),
        (["--workload-selector", "sleep"], "KEY=VALUE, as in app=sleep"),
        (["--istio-version", "1.21"], "1.22 or later, as in 1.30, or `all`"),
        (["--istio-version", "latest"], "1.22 or later, as in 1.30, or `all`"),
        (["--server-address", "10.0.0.1:50051"], "as in llm-proxy.llm-system.svc.cluster.local:50051"),
        (["--server-address", "llm-proxy.llm-system.svc.cluster.local"], "no address of a Service"),
        (["--server-address", "llm-proxy.llm-system.svc.cluster.local:http"], "1 to 65535"),
        (["--gateway", "ingressgateway"], "NAMESPACE/KEY=VALUE"),
        (["--gateway", "istio-system/ingressgateway"], "KEY=VALUE"),
        (["--gateway-port", "0"], "1<=x<=65535"),
        (["--header", "user-type"], "user-type=subscriber"),
        (["--bogus"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_value_is_explained(arguments: list[str], said: str) -> None:
    """A value that cannot be is refused, with what can be, and nothing is written."""
    done = CliRunner().invoke(main, ["config", "istio", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())


def test_a_missing_library_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the command says how to install it."""
    monkeypatch.setitem(sys.modules, "extproc.config.istio", None)
    done = CliRunner().invoke(main, ["config", "istio"])
    assert done.exit_code == 1
    assert "pip install '.[config]'" in done.stderr


def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    """An error of the file system is told in one line."""
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(main, ["config", "istio", "--output", str(tmp_path / "file" / "folder")])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")


def test_hosts_of_the_cluster_are_istios_own() -> None:
    """A Service of the cluster gets no ServiceEntry and no TLS of ours; its port is the Service's."""
    found = list(yaml.safe_load_all(applied(options(*ASKED["hosts"]))))
    of_providers = [
        (manifest["kind"], manifest["metadata"]["name"])
        for manifest in found
        if manifest["kind"] not in ("EnvoyFilter", "Telemetry")
    ]
    assert of_providers == [
        ("ServiceEntry", "api-anthropic-com"),
        ("DestinationRule", "api-anthropic-com"),
        ("VirtualService", "api-anthropic-com"),
        ("VirtualService", "llama-models-svc-cluster-local"),
    ]
    text = applied(options(*ASKED["hosts"]))
    assert "vllm.models.svc.cluster.local:8000" in text
    assert "portNumber: 8000" in text
    assert "outbound|9000||counter.tools.svc.example.org" in text


def _patches(name: str) -> list[Json]:
    return [
        patch
        for manifest in manifests(options(*ASKED[name]))
        if manifest["kind"] == "EnvoyFilter"
        for patch in manifest["spec"]["configPatches"]
    ]


def _manager(minor: int, context: str, *arguments: str) -> Json:
    gateway = context == "GATEWAY"
    proxy = Proxy(
        f"1.{minor}.1",
        context,
        "istio-system" if gateway else "default",
        {"istio": "ingressgateway"} if gateway else {},
    )
    listener = configuration(options(*arguments), proxy, ADDRESSES)["static_resources"]["listeners"][0]
    manager: Json = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["tracing"].pop("custom_tags", None)  # Telemetry writes them otherwise
    return manager


def _closed(schema: Any) -> Any:  # noqa: ANN401
    """Forbid what a schema does not name; Kubernetes drops or refuses it, where JSON Schema lets it pass."""
    if not isinstance(schema, dict):
        return schema
    closed = dict(schema)
    if "properties" in schema:
        closed["properties"] = {name: _closed(member) for name, member in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    for name in ("items", "additionalProperties"):
        if name in schema:
            closed[name] = _closed(schema[name])
    return closed
