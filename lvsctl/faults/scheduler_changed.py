"""The virtual service has another scheduler than it should have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import EVERY_MODE, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role
from lvsctl.model.service import Scheduler
from lvsctl.ops import AddService


def changes(scene: Scene) -> Iterator[Change]:
    """Source hashing, which keeps one client with one real server."""
    for service in scene.planned(AddService):
        other = Scheduler.RR if service.scheduler is Scheduler.SH else Scheduler.SH
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
