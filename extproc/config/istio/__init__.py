"""What attaches extproc to an Istio mesh: files of Kubernetes manifests, with comments.

Facts about Istio that decide what is written are in deploy/istio/README.md, with their sources.
"""

from __future__ import annotations

from collections.abc import Iterable

from extproc.config.document import comment, text
from extproc.config.istio.filters import gateway, sidecar
from extproc.config.istio.manifest import File
from extproc.config.istio.metrics import metrics
from extproc.config.istio.providers import providers
from extproc.config.istio.telemetry import mesh_config, telemetry
from extproc.config.istio.tracing import tracing
from extproc.config.options import IstioOptions


def files(options: IstioOptions) -> list[File]:
    """Return the files with what Kubernetes is to be given."""
    found = [providers(options), sidecar(options), gateway(options), telemetry(options), metrics(options)]
    return [file for file in [*found, tracing(options)] if file]


def applied(options: IstioOptions) -> str:
    """Return what kustomization.yaml lists, as one stream for `kubectl apply -f -`."""
    return "---\n".join(file.text for file in files(options) if file.applied)


def render(options: IstioOptions) -> dict[str, str]:
    """Return the text of each file, by its name."""
    found = files(options)
    texts = {file.name: file.text for file in found}
    return {**texts, "mesh-config.yaml": mesh_config(), "kustomization.yaml": _kustomization(found)}


def _kustomization(found: Iterable[File]) -> str:
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [file.name for file in found if file.applied],
    }
    left_out = ", ".join(file.name for file in found if not file.applied)
    head = f"kubectl apply -k .    (left out, see the heads of the files: mesh-config.yaml, {left_out})"
    return comment(head) + "\n" + text(document)
