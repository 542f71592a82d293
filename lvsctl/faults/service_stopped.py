"""The server process on a real server has ended; the director still sends requests."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import EVERY_MODE, ONE_SILENT, Fault, Scene
from lvsctl.faults.change import Change, removed
from lvsctl.model.lab import Role
from lvsctl.resources.ops import Listen


def changes(scene: Scene) -> Iterator[Change]:
    """Everything that listens there."""
    yield from map(removed, scene.planned(Listen))


FAULT = Fault(
    id="service-stopped",
    says="nothing listens on a real server",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=("the real server refuses the connections (RST)"),
    breaks=ONE_SILENT,
)
