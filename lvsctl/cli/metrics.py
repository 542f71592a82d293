"""Serving metrics of a watched lab: watch --metrics.

The throwaway kernel has no network of the host's, so the server is here, and reads what another
`lvsctl watch` prints, which runs where the labs are.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence

import typer

from lvsctl.cli.failure import say
from lvsctl.errors import HostError, UsageError

LOCAL = "127.0.0.1"


def parse_address(text: str) -> tuple[str, int]:
    """Parse ``ADDRESS:PORT`` or ``PORT``, which is on 127.0.0.1. Raises BadParameter."""
    host, colon, port = text.rpartition(":")
    if colon and host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise typer.BadParameter(f"{text!r}: write an IPv6 address in brackets, [::1]:9100.")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise typer.BadParameter(f"{text!r} is not ADDRESS:PORT, such as 127.0.0.1:9100.")
    return host or LOCAL, int(port)


def serve(address: tuple[str, int], words: Sequence[str]) -> int:
    """Serve the metrics of what `lvsctl WORDS` prints, a sample a line, until it ends.

    Returns its exit status. Raises HostError without prometheus_client, UsageError if the address
    cannot be listened on.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise HostError(
            "--metrics needs prometheus_client, which is not installed",
            hint="pip install 'lvsctl[metrics]'",
        )
    # Optional: the extra `metrics`.
    from prometheus_client import CollectorRegistry, start_http_server

    from lvsctl.output.metrics import LabMetrics

    metrics, registry = LabMetrics(), CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    host, port = address
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    shown = f"[{host}]" if ":" in host else host
    argv = [sys.executable, "-m", "lvsctl", *words]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        for number, line in enumerate(process.stdout):
            metrics.update(json.loads(line))
            if not number:
                say(f"metrics: http://{shown}:{server.server_port}/metrics; Ctrl-C ends it")
        return process.wait()
    except KeyboardInterrupt:
        return 0  # it got the signal, too
    finally:
        process.terminate()
        process.wait()
        server.shutdown()
        server.server_close()
