"""The director has a static ARP entry for a real server that has another network card now.

With direct routing the MAC address is all that says where a request goes.
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.faults.base import DR, NAT, ONE_SILENT, Fault, Scene
from lvsctl.faults.change import Change, added
from lvsctl.model.addresses import mac_for
from lvsctl.model.lab import Role
from lvsctl.resources.fault_ops import AddNeighbour


def changes(scene: Scene) -> Iterator[Change]:
    """An entry for the first real server of each service, with a MAC address nobody has."""
    for server in scene.first_entries():
        rip = server.real_server.rip
        network = scene.lab.network_of(rip)
        if network is not None and network.name in scene.node.networks:
            gone = mac_for(rip).replace("02:00:", "02:01:", 1)
            yield added(AddNeighbour(netns=scene.netns, device=network.name, address=rip, mac=gone))


FAULT = Fault(
    id="stale-neighbour",
    says="the director sends a real server's requests to a MAC address that nobody has",
    modes=(DR, NAT),
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("requests leave the director towards a MAC address that nobody has"),
    breaks=("dr.request-only-macs-change", "dr.one-segment", "dr.reply-direct", *ONE_SILENT),
)
