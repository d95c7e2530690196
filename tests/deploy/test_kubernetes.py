"""The manifests in deploy/kubernetes: valid by Kubernetes' own schemas, and right about each other and about us."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from extproc.cli import main
from extproc.settings import load

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
FILES = sorted(FOLDER.glob("*/*.yaml"))
# The oldest and the newest that the schemas know of those that have what we use (gRPC probes, sidecar containers).
VERSIONS = ("1.30", "1.37")

# Schemas for what is not Kubernetes' own, as far as it is used here:
# https://prometheus-operator.dev/docs/api-reference/api/, https://kubectl.docs.kubernetes.io/references/kustomize/
ENDPOINT = {"port", "path", "interval", "relabelings", "metricRelabelings"}
RELABELING = {"sourceLabels", "regex", "action", "targetLabel", "replacement"}
OTHERS = {
    "ServiceMonitor": {"selector", "jobLabel", "endpoints", "namespaceSelector"},
    "PodMonitor": {"selector", "podMetricsEndpoints", "namespaceSelector"},
}
KUSTOMIZATION = {"apiVersion", "kind", "namespace", "resources", "images", "patches"}

Manifest = dict[str, Any]


def documents(*files: Path) -> Iterator[Manifest]:
    """Yield the manifests in some files."""
    for file in files:
        yield from yaml.safe_load_all(file.read_text())


def one(kind: str) -> Manifest:
    """Return the only manifest of a kind in the central shape."""
    (found,) = [manifest for manifest in documents(*FOLDER.glob("central/*.yaml")) if manifest["kind"] == kind]
    return found


def own(manifest: Manifest) -> bool:
    """Tell whether Kubernetes itself has a schema for a manifest."""
    return not any(group in manifest["apiVersion"] for group in ("monitoring.coreos.com", "kustomize"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_kubernetes_takes_them(file: Path, version: str) -> None:
    """Each manifest is valid by the schemas of Kubernetes, without a field they do not know."""
    for manifest in documents(file):
        if file.name == "patch.yaml":
            manifest["spec"] |= {"selector": {}}
            manifest["spec"]["template"]["spec"]["containers"] = [{"name": "application"}]
        if own(manifest):
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_wrong_field_is_found() -> None:
    """The schemas refuse a field that does not exist."""
    manifest = one("Deployment")
    manifest["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


def test_monitors_have_known_fields() -> None:
    """What the Prometheus operator is given are fields that it has."""
    monitors = list(documents(FOLDER / "central" / "monitors.yaml"))
    assert [monitor["kind"] for monitor in monitors] == list(OTHERS)
    for monitor in monitors:
        spec = monitor["spec"]
        assert set(spec) <= OTHERS[monitor["kind"]]
        for endpoint in spec.get("endpoints", []) + spec.get("podMetricsEndpoints", []):
            assert set(endpoint) <= ENDPOINT
            for rule in endpoint["relabelings"] + endpoint.get("metricRelabelings", []):
                assert set(rule) <= RELABELING


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*/kustomization.yaml")), ids=lambda file: file.parent.name)
def test_kustomizations_name_what_is_there(file: Path) -> None:
    """Each kustomization has known fields and names files that exist, and all of them but the optional ones."""
    (kustomization,) = documents(file)
    assert set(kustomization) <= KUSTOMIZATION
    named = kustomization.get("resources", []) + [patch["path"] for patch in kustomization.get("patches", [])]
    there = {path.name for path in file.parent.glob("*.yaml")} - {file.name, "monitors.yaml"}
    assert set(named) == there
    (image,) = kustomization["images"]
    assert {c["image"] for c in containers(file.parent)} == {image["name"]}


def containers(folder: Path) -> Iterator[Manifest]:
    """Yield our containers in a folder's manifests."""
    for manifest in documents(*folder.glob("*.yaml")):
        pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
        yield from pod.get("containers", []) + pod.get("initContainers", [])


@pytest.mark.parametrize("shape", ["central", "beside"])
def test_arguments_are_ours(shape: str) -> None:
    """The containers' arguments are options that `extproc serve` takes, and the ports those it listens on."""
    (container,) = containers(FOLDER / shape)
    assert container["args"][0] == "serve"
    command = main.commands["serve"]
    given = command.make_context("serve", container["args"][1:]).params
    settings = load({name: value for name, value in given.items() if value is not None}, {}, None)
    ports = [port["containerPort"] for port in container["ports"]]
    listened = [address.rpartition(":")[2] for address in (settings.listen, settings.metrics)]
    assert [str(port) for port in ports] == [port for port in listened if port.isdigit()]
    assert isinstance(command, click.Command)


@pytest.mark.parametrize("shape", ["central", "beside"])
def test_containers_have_no_privileges(shape: str) -> None:
    """Our containers run as nobody special, on a file system they cannot change."""
    (container,) = containers(FOLDER / shape)
    context = container["securityContext"]
    assert not context["allowPrivilegeEscalation"]
    assert context["readOnlyRootFilesystem"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    pod = one("Deployment")["spec"]["template"]["spec"]["securityContext"] if shape == "central" else context
    assert pod["runAsNonRoot"]
    assert pod["runAsUser"] > 0


def test_everything_selects_the_deployment() -> None:
    """Service, budget, policy, autoscaler and monitor all mean this Deployment and its ports."""
    deployment = one("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
    service = one("Service")
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports
    assert one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    monitor = one("ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {p["name"] for p in service["spec"]["ports"]}


def test_there_is_time_to_drain() -> None:
    """The pod is not killed before preStop and draining are over."""
    pod = one("Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = int(container["args"][container["args"].index("--drain-seconds") + 1])
    assert pod["terminationGracePeriodSeconds"] > pause + drain


def test_the_service_makes_no_variables_of_ours() -> None:
    """Kubernetes' variables for the Service do not read as settings, even where service links are on."""
    assert not one("Service")["metadata"]["name"].upper().replace("-", "_").startswith("EXTPROC")
