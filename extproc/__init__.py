"""Lets Envoy count which workload used which large language model for how many tokens."""

from importlib.metadata import version

__version__ = version("extproc")
