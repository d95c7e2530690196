"""Token counters of the proxy's own, by its stats access logger."""

from __future__ import annotations

from collections.abc import Sequence

from extproc.config.envoy import FILTER, StatsPrefix, token_counters
from extproc.config.istio.manifest import GATEWAY, File, Manifest, Place, envoy_filter, merged_into_manager, outbound
from extproc.config.options import IstioOptions, Version
from extproc.wanted import CALLER, WORKLOAD

# From which version of Istio on, up to which, and a regular expression for them.
_VERSIONS: tuple[tuple[StatsPrefix, Version, Version, str], ...] = (
    (StatsPrefix.FIELD, (1, 30), (1, 31), r"^1\.3[01].*"),
    (StatsPrefix.SCOPE, (1, 32), (1, 99), r"^1\.(3[2-9]|[4-9][0-9]).*"),
)


def metrics(options: IstioOptions) -> File | None:
    """Return the counters; `None` for versions of Istio without a stats access logger."""
    version = options.istio_version
    variants = [
        (prefix, None if version else versions)
        for prefix, first, last, versions in _VERSIONS
        if version is None or first <= version <= last
    ]
    if not variants:
        return None
    patches = _patches(outbound(options), variants, WORKLOAD)
    found = [envoy_filter(f"{FILTER}-metrics", options.namespace, options.workload_selector, patches)]
    if options.gateway:
        # As with the filter: the caller where Istio knows it, else the gateway.
        workload, namespace = (
            f"'downstream_peer' in filter_state ? {peer} : {own}" for peer, own in zip(CALLER, WORKLOAD, strict=True)
        )
        patches = _patches(GATEWAY, variants, (workload, namespace))
        name, gateway = f"{FILTER}-gateway-metrics", options.gateway
        found.append(envoy_filter(name, gateway.namespace, gateway.selector, patches))
    return File(
        "metrics.yaml",
        "asm_llm_proxy_prompt_tokens and asm_llm_proxy_completion_tokens, counted by the proxy itself and scraped from "
        "its own port: :15090/stats/prometheus. Istio 1.30 and later; for those before, scrape extproc, which counts "
        "the same.\n"
        "\n"
        "The prefix `istiocustom` passes Istio's filter of stats and is left out of the names that Prometheus sees. "
        "Each counter has a filter, so that calls without that count are passed over.",
        tuple(found),
    )


def _patches(
    place: Place, variants: Sequence[tuple[StatsPrefix, str | None]], workload: tuple[str, str]
) -> list[Manifest]:
    return [
        patch
        for prefix, versions in variants
        for patch in merged_into_manager(place, {"access_log": token_counters(prefix, workload)}, versions)
    ]
