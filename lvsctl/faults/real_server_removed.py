"""A real server is missing in the director's IPVS table."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import EVERY_MODE, Fault, Scene
from lvsctl.faults.change import Change, removed
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """The first real server of each service."""
    yield from map(removed, scene.first_entries())


FAULT = Fault(
    id="real-server-removed",
    says="a real server is missing in the director's IPVS table",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("no request reaches the real server"),
    breaks=("all.real-servers-reached", "all.distribution"),
)
