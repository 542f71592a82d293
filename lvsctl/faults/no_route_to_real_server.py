"""The director has no route to the real servers' networks."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import NOBODY_ANSWERS, TUN, Fault, Scene
from lvsctl.faults.change import Change, removed
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddRoute


def changes(scene: Scene) -> Iterator[Change]:
    """Every route that the director has beyond its own networks."""
    yield from map(removed, scene.planned(AddRoute))


FAULT = Fault(
    id="no-route-to-real-server",
    says="the director has no route to the real servers",
    modes=(TUN,),
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("requests enter the director and nothing leaves it"),
    breaks=("tun.reply-direct", *NOBODY_ANSWERS),
)
