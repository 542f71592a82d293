"""A real server's weight is 0: it keeps its connections and gets no new ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import EVERY_MODE, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """The first real server of each service."""
    for server in scene.first_entries():
        yield Change(server, replace(server, real_server=replace(server.real_server, weight=0)))


FAULT = Fault(
    id="real-server-drained",
    says="a real server was drained and not brought back",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("no request reaches the real server"),
    breaks=("all.real-servers-reached", "all.distribution"),
)
