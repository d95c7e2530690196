"""The access log, and the label `model` on the mesh's own metrics."""

from __future__ import annotations

from typing import Any

from extproc.config.document import Noted, comment, text
from extproc.config.envoy import FILTER, NAMESPACE
from extproc.config.istio.manifest import File, Manifest, telemetry_resource
from extproc.config.options import IstioOptions

_PROVIDER = "llm-json"

_LABELS = {
    "start_time": "%START_TIME%",
    "authority_for": "%REQ(:AUTHORITY)%",
    "method": "%REQ(:METHOD)%",
    # Without the query: some providers take the API key in it.
    "path": "%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "route_name": "%ROUTE_NAME%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "duration": "%DURATION%",
    **{
        key: f"%DYNAMIC_METADATA({NAMESPACE}:{key})%"
        for key in ("request_model", "request_prompt_tokens", "request_completion_tokens", "provider", "usage")
    },
}


def telemetry(options: IstioOptions) -> File:
    """Return what switches on the access log and adds the label."""
    spec = _spec()
    found = [telemetry_resource(FILTER, options.namespace, options.workload_selector, spec)]
    if options.gateway:
        name, gateway = f"{FILTER}-gateway", options.gateway
        found.append(telemetry_resource(name, gateway.namespace, gateway.selector, spec))
    return File(
        "telemetry.yaml",
        "1. The access log with the model and the tokens of each call: the provider is in mesh-config.yaml.\n"
        "2. The label `model` on istio_requests_total and istio_request_duration_milliseconds.\n"
        "\n"
        "Istio honours one Telemetry without a selector per namespace: if there is one, add these parts to it.",
        tuple(found),
    )


def mesh_config() -> str:
    """Return the access log's format, for Istio's mesh configuration."""
    provider = {"name": _PROVIDER, "envoyFileAccessLog": {"path": "/dev/stdout", "logFormat": {"labels": _LABELS}}}
    head = (
        "The access log's format, for the mesh configuration: it is no manifest, and not in kustomization.yaml.\n"
        "\n"
        "    helm upgrade istiod istio/istiod -n istio-system --reuse-values -f mesh-config.yaml\n"
        "\n"
        "or put it under `spec:` of the IstioOperator that `istioctl install -f` gets. A list replaces the one that "
        "was there: add the providers you have. telemetry.yaml switches it on."
    )
    return comment(head) + "\n" + text({"meshConfig": {"extensionProviders": [provider]}})


def _spec() -> Manifest:
    tags = {"model": {"value": f"metadata.filter_metadata['{NAMESPACE}'].model_tag"}}
    overrides: list[Any] = [
        {"match": {"metric": metric, "mode": "CLIENT"}, "tagOverrides": tags}
        for metric in ("REQUEST_COUNT", "REQUEST_DURATION")
    ]
    return {
        "accessLogging": [{"providers": [{"name": _PROVIDER}]}],
        "metrics": Noted(
            "`model_tag` is `request_model` with a bounded number of values: clients can send any model name, and "
            "each value of a label is a new series in every proxy. The full name is in the access log. Calls that "
            "are none to a model get `unknown`.",
            [{"providers": [{"name": "prometheus"}], "overrides": overrides}],
        ),
    }
