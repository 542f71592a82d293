"""The VIP is missing on the director: clients' requests never reach IPVS."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import EVERY_MODE, NOBODY_ANSWERS, Fault, Scene
from lvsctl.faults.change import Change, removed
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """The VIP, taken off the director."""
    yield from map(removed, scene.vips())


FAULT = Fault(
    id="vip-missing-on-director",
    says="the director does not hold the VIP",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("ARP questions for the VIP stay unanswered, and IPVS counts nothing"),
    breaks=("dr.same-vip", "dr.only-director-answers-arp", *NOBODY_ANSWERS),
)
