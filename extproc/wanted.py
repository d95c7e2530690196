"""What is looked at of an exchange beside its bodies: headers and attributes.

Envoy need not show more of the headers, and should not: credentials are among them.
"""

from __future__ import annotations

from collections.abc import Iterable

from extproc.core.exchange import REQUEST_HEADERS, RESPONSE_HEADERS
from extproc.core.format import Format
from extproc.formats import FORMATS

CALLER = ("filter_state.downstream_peer.workload", "filter_state.downstream_peer.namespace")
"""Attributes: the workload that calls the proxy, and its namespace, as Istio's exchange of peer metadata has them."""
WORKLOAD = ("xds.node.metadata.WORKLOAD_NAME", "xds.node.metadata.NAMESPACE")
"""Attributes: the workload of the proxy, and its namespace."""

_CALL = frozenset((":method", ":path", ":authority"))


def wanted_headers(own: Iterable[Format] = ()) -> frozenset[str]:
    """Return the names of all headers that tell a call from others, or hold facts, of our formats and of some more."""
    return _CALL | REQUEST_HEADERS | RESPONSE_HEADERS.union(*(each.response_headers for each in (*own, *FORMATS)))
