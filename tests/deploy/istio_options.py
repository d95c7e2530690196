"""The command `extproc config istio`, for tests."""

from __future__ import annotations

from extproc.config.command import istio, options_of
from extproc.config.options import IstioOptions


def options(*arguments: str) -> IstioOptions:
    """Return what the command makes of these arguments."""
    values = istio.make_context("istio", list(arguments)).params
    del values["output"]
    return options_of(**values)
