"""The virtual service is missing in the director's IPVS table."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import EVERY_MODE, NOBODY_ANSWERS, Fault, Scene
from lvsctl.faults.change import Change, removed
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddRealServer, AddService


def changes(scene: Scene) -> Iterator[Change]:
    """All virtual services, their real servers first."""
    yield from map(removed, scene.planned(AddRealServer))
    yield from map(removed, scene.planned(AddService))


FAULT = Fault(
    id="service-missing",
    says="the virtual service is missing in the director's IPVS table",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("the director itself refuses the connections (RST), or has nobody to answer them"),
    breaks=(
        "dr.reply-direct",
        "tun.reply-direct",
        "nat.both-directions-load-director",
        "all.counters-agree",
        "all.reply-path-counted",
        "all.frames-agree",
        *NOBODY_ANSWERS,
    ),
)
