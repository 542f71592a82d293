"""A real server has no way to clients on other networks."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import EVERY_MODE, ONE_SILENT, Fault, Scene
from lvsctl.faults.change import Change, removed
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddRoute


def changes(scene: Scene) -> Iterator[Change]:
    """Every route that the real server has beyond its own networks."""
    yield from map(removed, scene.planned(AddRoute))


FAULT = Fault(
    id="no-default-gateway",
    says="a real server has no default gateway",
    modes=EVERY_MODE,
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=("requests reach the real server and no reply leaves it"),
    breaks=("dr.reply-direct", "tun.reply-direct", *ONE_SILENT),
)
