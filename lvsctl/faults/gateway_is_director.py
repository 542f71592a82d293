"""A real server sends its replies to the director, though it is to answer the client directly.

It does not forward, so it drops them (IpInAddrErrors). With ip_forward=1 it drops them as well,
as martians (in_martian_src): their source is the VIP, which is its own address.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

from lvsctl.faults.base import DR, ONE_SILENT, TUN, Fault, Scene
from lvsctl.faults.change import Change, added
from lvsctl.model.lab import Role
from lvsctl.resources.ops import AddRoute


def changes(scene: Scene) -> Iterator[Change]:
    """The default gateway; for a client on its own network, a route to that client."""
    for network, _, dip in scene.neighbours(Role.DIRECTOR):
        for route in scene.planned(AddRoute):
            if route.to is None:
                yield Change(route, replace(route, via=dip))
        for beside, _, cip in scene.neighbours(Role.CLIENT):
            if beside == network:
                yield added(AddRoute(netns=scene.netns, to=ip_network(cip), via=dip))


FAULT = Fault(
    id="gateway-is-director",
    says="a real server's way to the client leads through the director",
    modes=(DR, TUN),
    at=(Role.REAL_SERVER,),
    changes=changes,
    symptom=("replies from the VIP arrive at the director, which drops them"),
    breaks=("dr.reply-direct", "tun.reply-direct", *ONE_SILENT),
)
