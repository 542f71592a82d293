"""A firewall on the way lets through TCP, but not the tunnel.

That is protocol 4 (IP in IP) or 47 (GRE), which few rules think of; or UDP, in GUE.
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import NOBODY_ANSWERS, TUN, Fault, Scene
from lvsctl.faults.change import Change, added
from lvsctl.model.lab import Role
from lvsctl.model.packet import GRE, IPIP, UDP
from lvsctl.model.service import Encapsulation
from lvsctl.resources.fault_ops import DropIncoming

PROTOCOL = {Encapsulation.IPIP: IPIP, Encapsulation.GRE: GRE, Encapsulation.GUE: UDP}


def changes(scene: Scene) -> Iterator[Change]:
    """Every interface of the router."""
    for service in scene.services([TUN]):
        protocol = PROTOCOL[service.encapsulation]
        for device in scene.node.networks:
            yield added(DropIncoming(netns=scene.netns, device=device, protocol=protocol))


FAULT = Fault(
    id="tunnel-filtered",
    says="a firewall between director and real servers drops the tunnel",
    modes=(TUN,),
    at=(Role.ROUTER,),
    changes=changes,
    symptom=("tunnelled requests leave the director and reach no real server"),
    breaks=("tun.routed", "tun.reply-direct", *NOBODY_ANSWERS),
)
