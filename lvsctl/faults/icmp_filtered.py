"""A firewall drops ICMP, so that nobody learns that a packet was too large for the tunnel.

Small requests work; a large one hangs until the connection is given up.
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import TUN, TUNNEL_COSTS, Fault, Scene
from lvsctl.faults.change import Change, added
from lvsctl.model.lab import Role
from lvsctl.model.packet import ICMP
from lvsctl.resources.fault_ops import DropIncoming


def changes(scene: Scene) -> Iterator[Change]:
    """Every interface of a router, or of the client itself."""
    for device in scene.node.networks:
        yield added(DropIncoming(netns=scene.netns, device=device, protocol=ICMP))


FAULT = Fault(
    id="icmp-filtered",
    says="a firewall between director and client drops ICMP",
    modes=(TUN,),
    at=(Role.ROUTER, Role.CLIENT),
    changes=changes,
    symptom=(
        "the director's fragmentation-needed does not reach the client, which sends the "
        "same full-sized segment again and again"
    ),
    breaks=TUNNEL_COSTS,
)
