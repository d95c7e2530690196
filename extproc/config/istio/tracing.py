"""Tags of spans."""

from __future__ import annotations

from extproc.config.envoy import FILTER, NAMESPACE, SPAN_TAGS, span_tags
from extproc.config.istio.manifest import File, envoy_filter, merged_into_manager, outbound, telemetry_resource
from extproc.config.options import IstioOptions

# Since then, tags of Telemetry can have a `formatter`: https://github.com/istio/api/pull/3600
_FORMATTER = (1, 29)


def tracing(options: IstioOptions) -> File:
    """Return the tags, for those whose mesh traces."""
    name = f"{FILTER}-tracing"
    head = (
        "Spans with the model and the tokens of their call. Not in kustomization.yaml: add it where the mesh traces, "
        "by the provider of your mesh configuration.\n\n"
    )
    if options.istio_version and options.istio_version >= _FORMATTER:
        tags = {
            tag: {"formatter": {"value": f"%DYNAMIC_METADATA({NAMESPACE}:{key})%"}} for tag, key in SPAN_TAGS.items()
        }
        spec = {"tracing": [{"customTags": tags}]}
        manifest = telemetry_resource(name, options.namespace, options.workload_selector, spec)
        head += "`formatter` is in Istio's API since 1.29. If there is a Telemetry with `tracing`, add the tags to it."
    else:
        patches = merged_into_manager(outbound(options), {"tracing": {"custom_tags": span_tags()}})
        manifest = envoy_filter(name, options.namespace, options.workload_selector, patches)
        head += (
            "Telemetry's customTags can read metadata since Istio 1.29 (`formatter`); this works with all versions, "
            "but writes counts from a million on in six digits (1.23457e+06). It would switch tracing on in proxies "
            "that have none configured."
        )
    return File("tracing.yaml", head, (manifest,), applied=False)
