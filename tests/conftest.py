"""What all tests share."""

from hypothesis import HealthCheck, settings

# Nothing is asserted of wall-clock time: a busy machine is no mistake.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

pytest_plugins = ["tests.in_machine"]
