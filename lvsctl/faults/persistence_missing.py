"""A virtual service that should be persistent is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import EVERY_MODE, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role
from lvsctl.model.service import Scheduler
from lvsctl.resources.ops import AddService

FAITHFUL = (Scheduler.SH, Scheduler.DH, Scheduler.MH, Scheduler.FO)
"""Schedulers that give one client the same real server again in any case."""


def changes(scene: Scene) -> Iterator[Change]:
    """Each persistent service whose scheduler would spread one client's connections."""
    for service in scene.planned(AddService):
        if service.persistence and service.scheduler not in FAITHFUL:
            yield Change(service, replace(service, persistence=0))


FAULT = Fault(
    id="persistence-missing",
    says="a virtual service that should be persistent is not",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("one client's connections go to several real servers"),
    breaks=("all.distribution",),
)
