"""What all tests share."""

import signal

pytest_plugins = ["tests.companions"]

# Whoever runs the tests in the background may have told them to ignore Ctrl-C, and so all that
# they start: those that press it would wait forever.
signal.signal(signal.SIGINT, signal.default_int_handler)
# timeout(1), and a CI job that is cancelled, send this one: what the tests started ends with them.
signal.signal(signal.SIGTERM, signal.default_int_handler)
