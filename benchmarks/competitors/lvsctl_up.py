"""`lvsctl up` and `down`, the whole command, on a kernel that may have no IPVS.

    python -c 'from benchmarks.competitors.lvsctl_up import main; main()' up FILE
    python -c 'from benchmarks.competitors.lvsctl_up import main; main()' down LAB

The operations on the IPVS table are left out, as by the competitors; everything else is done:
what they do, and besides that all settings that claims rest on, offloads, the registry, waiting
until every link carries frames, and the responder that answers for the real servers.
Prints {"ms", "cpu_ms"} of the building part: from the first operation to the last, without
the responder and the waiting.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lvsctl.cli.main import entry
from lvsctl.model.event import Event, StageStarted
from lvsctl.model.lab import Lab
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService


def main() -> None:
    """The command line's words: up FILE, or down LAB."""
    if sys.argv[1] == "up":
        leave_ipvs_out()
        report_building()
    sys.argv += ["--where", "host"]
    entry()


def leave_ipvs_out() -> None:
    from lvsctl.engine import up
    from lvsctl.plan import planner

    planned = planner._virtual_services

    def without_ipvs(lab: Lab) -> Iterator[Resource]:
        return (r for r in planned(lab) if not isinstance(r, IpvsService | IpvsRealServer))

    planner._virtual_services = without_ipvs
    up.probe.load_ipvs = lambda: None


def report_building() -> None:
    """Have the building part's time printed, instead of what the command prints."""
    from lvsctl.cli.output import Progress

    told = os.dup(1)
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (until the end)
    record = Progress.__call__
    begun: list[tuple[float, float]] = []

    def watched(progress: Progress, event: Event) -> None:
        if isinstance(event, StageStarted):
            wall, cpu = time.perf_counter(), time.process_time()
            begun.append((wall, cpu))
            if event.title == "servers":  # after the building part
                ms, cpu_ms = (wall - begun[0][0]) * 1e3, (cpu - begun[0][1]) * 1e3
                os.write(told, json.dumps({"ms": ms, "cpu_ms": cpu_ms}).encode() + b"\n")
        record(progress, event)

    Progress.__call__ = watched
