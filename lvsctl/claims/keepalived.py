"""Directors whose IPVS table keepalived owns: what it has decided is what a service is.

A real server that a health check has taken out of the table is not part of the service meanwhile:
no claim expects an answer from it. A sorry server is, while keepalived has it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from lvsctl.model.evidence import Evidence, Run
from lvsctl.model.lab import Lab
from lvsctl.model.service import ForwardingMethod, RealServer, Scheduler, VirtualService
from lvsctl.model.state import RealServerState, ServiceState


def as_decided(evidence: Evidence) -> Evidence:
    """Return the evidence with each service as keepalived's table had it before the requests."""
    if not any(node.runs_keepalived for node in evidence.lab.directors):
        return evidence
    runs = tuple(_as_decided(run) for run in evidence.runs)
    return replace(evidence, lab=_with_services(evidence.lab, runs), runs=runs)


def _as_decided(run: Run) -> Run:
    """Return the run with its service as the table has it; as it is if the table has nothing."""
    table = run.before
    if table is None:
        return run
    servers = tuple(_in_table(run.service, table))
    if not servers:
        return run
    scheduler = run.service.scheduler
    with suppress(ValueError):  # a scheduler that no topology can have
        scheduler = Scheduler(table.scheduler)
    service = replace(
        run.service, scheduler=scheduler, persistence=table.persistence, real_servers=servers
    )
    return replace(run, service=service)


def _in_table(service: VirtualService, table: ServiceState) -> Iterator[RealServer]:
    for server in service.real_servers:
        for entry in table.real_servers:
            if (entry.rip, entry.port) == (server.rip, server.port):
                yield _as_entered(server, entry)
    for entry in table.real_servers:
        if service.sorry is not None and service.is_sorry(entry.rip):
            yield replace(_as_entered(service.sorry, entry), rip=entry.rip)


def _as_entered(server: RealServer, entry: RealServerState) -> RealServer:
    forward = entry.forward if isinstance(entry.forward, ForwardingMethod) else server.forward
    return replace(
        server, weight=entry.weight, upper=entry.upper, lower=entry.lower, forward=forward
    )


def _with_services(lab: Lab, runs: tuple[Run, ...]) -> Lab:
    decided = {run.service.name: run.service for run in runs}
    services = tuple(decided.get(service.name, service) for service in lab.services)
    return replace(lab, services=services)
