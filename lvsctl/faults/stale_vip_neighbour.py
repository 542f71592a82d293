"""A client, or the router before the director, still sends to the director that failed.

At a failover the new director must say that it has the VIP now (gratuitous ARP). Until
the neighbour's entry expires, requests go to a MAC address that nobody has any more.
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import EVERY_MODE, NOBODY_ANSWERS, Fault, Scene
from lvsctl.faults.change import Change, added
from lvsctl.model.addresses import mac_for
from lvsctl.model.lab import Role
from lvsctl.resources.fault_ops import AddNeighbour


def changes(scene: Scene) -> Iterator[Change]:
    """An entry for each VIP on a network of the node."""
    for service in scene.services(EVERY_MODE):
        network = scene.lab.network_of(service.vip)
        if network is not None and network.name in scene.node.networks:
            gone = mac_for(service.vip).replace("02:00:", "02:01:", 1)
            yield added(
                AddNeighbour(netns=scene.netns, device=network.name, address=service.vip, mac=gone)
            )


FAULT = Fault(
    id="stale-vip-neighbour",
    says="requests go to a MAC address that held the VIP before a failover",
    modes=EVERY_MODE,
    at=(Role.CLIENT, Role.ROUTER),
    changes=changes,
    symptom=(
        "requests leave the client's side towards a MAC address that nobody has, and IPVS"
        " counts nothing"
    ),
    breaks=("dr.only-director-answers-arp", *NOBODY_ANSWERS),
)
