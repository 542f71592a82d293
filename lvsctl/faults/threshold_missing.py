"""A real server has no upper threshold where it should have one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import EVERY_MODE, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddRealServer


def changes(scene: Scene) -> Iterator[Change]:
    """Every real server that is limited beside one that takes what it may not."""
    for server in scene.planned(AddRealServer):
        real = server.real_server
        if real.upper and real.weight:
            yield Change(server, replace(server, real_server=replace(real, upper=0, lower=0)))


FAULT = Fault(
    id="threshold-missing",
    says="a real server takes any number of connections, where it should be limited",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("the real server gets more connections than its upper threshold"),
    breaks=("all.distribution",),
)
