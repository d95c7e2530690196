"""The APIs that are understood: each module here that does not begin with an underscore is one, by its `FORMAT`.

A new file is a new format; nothing else needs to know of it.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from extproc.core.format import Format

FORMATS: tuple[Format, ...] = tuple(
    import_module(f"{__name__}.{module.name}").FORMAT
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_")
)


def find(method: str, path: str) -> Format | None:
    """Return the format that claims a request; `path` comes without its query. `None`: it is no call to a model."""
    return next((candidate for candidate in FORMATS if candidate.claims(method, path)), None)
