"""The director reaches a real server through a router, though direct routing needs one segment.

Direct routing hands over a frame, not a packet to an address: the router that gets it
finds the VIP in it, and carries it back to the director.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from lvsctl.faults.base import DR, ONE_SILENT, Fault, Scene
from lvsctl.faults.change import Change, added
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddRoute


def changes(scene: Scene) -> Iterator[Change]:
    """A route to the first real server of each service, through a router beside it."""
    for server in scene.first_entries():
        rip = server.real_server.rip
        for network, _, address in scene.neighbours(Role.ROUTER):
            if scene.lab.network_of(rip) == scene.lab.network(network):
                yield added(AddRoute(netns=scene.netns, to=ip_network(rip), via=address))


FAULT = Fault(
    id="behind-router",
    says="a real server is behind a router",
    modes=(DR,),
    at=(Role.DIRECTOR,),
    changes=changes,
    symptom=("requests go back and forth between the director and the router until their TTL ends"),
    breaks=("dr.request-only-macs-change", "dr.one-segment", "dr.reply-direct", *ONE_SILENT),
)
