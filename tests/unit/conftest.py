"""What unit tests share."""

from hypothesis import HealthCheck, settings

# However busy the machine is: Hypothesis would time each example, and the drawing of them.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
