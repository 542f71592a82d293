"""A real server has another weight than it should have; one that is drained has any at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import EVERY_MODE, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role
from lvsctl.model.service import Scheduler
from lvsctl.resources.ops import AddRealServer, AddService

WEIGHTED = (Scheduler.WRR, Scheduler.WLC, Scheduler.SED, Scheduler.NQ)
"""Schedulers whose definition has a share for each weight."""


def changes(scene: Scene) -> Iterator[Change]:
    """The drained real servers; else the first of each service whose scheduler has shares."""
    drained = [s for s in scene.planned(AddRealServer) if not s.real_server.weight]
    weighted = {s.service for s in scene.planned(AddService) if s.scheduler in WEIGHTED}
    weighted -= {server.service for server in drained}
    others = [server for server in scene.first_entries() if server.service in weighted]
    for server in (*drained, *others):
        real = server.real_server
        other = replace(real, weight=3 if real.weight == 1 else 1)
        yield Change(server, replace(server, real_server=other))


FAULT = Fault(
    id="weight-changed",
    says="a real server has the wrong weight",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("the real server gets more or fewer connections than its share"),
    breaks=("all.distribution",),
)
