"""Label values that clients cannot misuse.

Models and hosts come from clients. As labels they are cleaned, so that they cannot break a log line, a stats tag or the
exposition, and bounded in number, so that they cannot fill the memory of Envoy, Prometheus or this server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

OTHER = "other"
"""What every value beyond the limit is called."""
UNKNOWN = "unknown"
"""What a value is called that nobody named; Istio uses the same word."""
MAX_BYTES = 128

# Control characters (C0, DEL, C1, line and paragraph separators), quotes, backslash, and `|`, which separates tags in
# Envoy's flat stat names.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\"'`\\\\|\ud800-\udfff]")

# Most calls of a mesh are to a few models.
_REMEMBERED = 1024


def clean(value: str) -> str:
    """Return `value` with unsafe characters as `_`, cut to 128 bytes of UTF-8 at a character."""
    # Each character is at least one byte: what is beyond so many characters cannot be kept.
    return _clean(value[:MAX_BYTES])


@lru_cache(_REMEMBERED)
def _clean(value: str) -> str:
    value = _UNSAFE.sub("_", value)
    encoded = value.encode()
    return value if len(encoded) <= MAX_BYTES else encoded[:MAX_BYTES].decode(errors="ignore")


class BoundedLabel:
    """The values of one label: pinned ones always, of others the first `limit` distinct ones, the rest `other`."""

    def __init__(self, name: str, limit: int, pinned: Iterable[str], on_overflow: Callable[[str], object]) -> None:
        self._name = name
        self._on_overflow = on_overflow
        self._values = {UNKNOWN} | {clean(value) for value in pinned}
        self._room = limit
        self._seen: dict[str, str] = {}

    def __call__(self, value: str | None) -> str:
        """Return the label for a value that someone else chose; `None` and "" are `unknown`."""
        if not value:
            return UNKNOWN
        seen = self._seen.get(value)
        if seen is not None:
            return seen
        label = clean(value)
        if label not in self._values:
            if self._room <= 0:
                self._on_overflow(self._name)
                return OTHER
            self._room -= 1
            self._values.add(label)
        if label == value:
            # Only such: of spellings that are cleaned to one label there can be any number.
            self._seen[value] = label
        return label


def host(authority: str) -> str:
    """Return the host of an `:authority`, without its port and user (RFC 3986, section 3.2), in lower case."""
    authority = authority.rpartition("@")[2]
    name, colon, port = authority.rpartition(":")
    return (name if colon and (port.isdigit() or not port) else authority).lower()
