"""The VIP is on a real server's LAN interface, where arp_ignore=1 does not silence it.

arp_ignore=1 answers for addresses of the interface that the question came in on
(ip-sysctl.rst). So the VIP belongs on a device that is not on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import DR, PAST_DIRECTOR, Fault, Scene
from lvsctl.faults.change import Change
from lvsctl.model.lab import Role


def changes(scene: Scene) -> Iterator[Change]:
    """The VIP, moved from the loopback to the interface."""
    for vip in scene.vips(device="lo"):
        yield Change(vip, replace(vip, device=scene.node.networks[0]))


FAULT = Fault(
    id="vip-on-lan",
    says="a real server holds the VIP on its LAN interface instead of its loopback",
    modes=(DR,),
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=(
        "the real server answers ARP questions for the VIP as the director does; who "
        "believes it talks past the director"
    ),
    breaks=("dr.only-director-answers-arp",),
    may_break=PAST_DIRECTOR,
)
