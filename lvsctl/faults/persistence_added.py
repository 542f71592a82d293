"""The virtual service is persistent, so one client stays with one real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import EVERY_MODE, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddService


def changes(scene: Scene) -> Iterator[Change]:
    """Five minutes, ipvsadm's own default."""
    for service in scene.planned(AddService):
        if not service.persistence:
            yield Change(service, replace(service, persistence=300))


FAULT = Fault(
    id="persistence-added",
    says="the virtual service is persistent and should not be",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("all connections of a client go to one real server"),
    breaks=("all.distribution",),
    may_break=("all.real-servers-reached",),
)
