"""What all tests share."""

pytest_plugins = ["tests.in_machine"]
