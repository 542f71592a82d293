"""The virtual service has another scheduler than it should have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import EVERY_MODE, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role
from lvsctl.model.service import Scheduler
from lvsctl.resources.ops import AddRealServer, AddService


def changes(scene: Scene) -> Iterator[Change]:
    """One that keeps one client with one real server; where the service has that, another.

    Source hashing; failover where it could choose a real server that takes nothing.
    """
    closed = {
        server.service
        for server in scene.planned(AddRealServer)
        if server.real_server.upper or not server.real_server.weight
    }
    for service in scene.planned(AddService):
        other = Scheduler.FO if service.service in closed else Scheduler.SH
        if service.scheduler is other:
            other = Scheduler.RR
        yield Change(service, replace(service, scheduler=other))


FAULT = Fault(
    id="scheduler-changed",
    says="the virtual service has the wrong scheduler",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("all connections of a client go to one real server"),
    breaks=("all.distribution",),
    may_break=("all.real-servers-reached",),
)
