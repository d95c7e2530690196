"""Documents as formats get them, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping

from extproc.core.document import Document
from extproc.core.facts import Usage
from extproc.core.format import Format


def read(api: Format, document: Mapping[str, object]) -> Document:
    """Return what is wanted of an event, or of a whole answer, which is no more than that."""
    found = api.event.read(json.dumps(document).encode())
    assert found is not None
    return found


def usage_of(api: Format, document: Mapping[str, object]) -> Usage:
    """Return the counts in a document."""
    return api.total(api.counts(read(api, document)))
