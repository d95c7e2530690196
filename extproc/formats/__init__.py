"""The APIs that are understood: each module here that does not begin with an underscore is one, by its `FORMAT`.

A new file is a new format; nothing else needs to know of it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module

from extproc.core.format import Format
from extproc.formats._detected import detected

Find = Callable[[str, str, str], Format | None]
"""Finds the format that claims a request, by its method, its path without the query, and its host.

The host comes without its port and in lower case. `None`: it is no call to a model.
"""

# What is asked again need not be searched again. Clients choose paths and hosts, so both bounds are needed.
_REMEMBERED = 4096
_SHORT = 256

FORMATS: tuple[Format, ...] = tuple(
    import_module(f"{__name__}.{module.name}").FORMAT
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_")
)


def finder(own: Iterable[Format] = (), detect_hosts: Iterable[str] = ()) -> Find:
    """Return what finds formats: those declared by the user first, then ours, then a guess for some hosts."""
    candidates = (*own, *FORMATS, detected(detect_hosts))

    def search(method: str, path: str, host: str) -> Format | None:
        return next((candidate for candidate in candidates if candidate.claims(method, path, host)), None)

    remembered = lru_cache(maxsize=_REMEMBERED)(search)

    def find(method: str, path: str, host: str) -> Format | None:
        short = len(path) + len(host) + len(method) <= _SHORT
        return remembered(method, path, host) if short else search(method, path, host)

    return find


def find(method: str, path: str, host: str = "") -> Format | None:
    """Find a format among ours."""
    return _ours(method, path, host)


_ours = finder()
