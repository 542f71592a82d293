"""Requests for the VIP are routed straight to a real server, past the director.

It holds the VIP, so it answers, and nobody notices but for the load.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from lvsctl.faults.base import DR, PAST_DIRECTOR, TUN, Fault, Scene
from lvsctl.faults.change import Change, added
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddRoute


def changes(scene: Scene) -> Iterator[Change]:
    """A route to each VIP, from the client's or a router's side, through a real server."""
    for service in scene.services((DR, TUN)):
        rips = [s.rip for s in service.real_servers]
        near = [ip for _, _, ip in scene.neighbours(Role.REAL_SERVER) if ip in rips]
        if near:
            yield added(AddRoute(netns=scene.netns, to=ip_network(service.vip), via=near[0]))


FAULT = Fault(
    id="director-bypassed",
    says="requests for the VIP go to a real server, past the director",
    modes=(DR, TUN),
    at=(Role.CLIENT, Role.ROUTER),
    changes=changes,
    symptom=("every request is answered, by one real server, and IPVS counts nothing"),
    breaks=PAST_DIRECTOR,
)
