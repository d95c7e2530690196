"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The machines that run this are shared: no example is wrong for being slow.
settings.register_profile("extproc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("extproc")
