"""The client is on the real servers' network, so they answer it directly, past the director.

Their replies then carry the RIP, and the client, who asked the VIP, refuses them. The
topology's reader refuses such a lab; so somebody has to plug the client in elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network, ip_network

from lvsctl.faults.base import NAT, NOBODY_ANSWERS, Fault, Scene
from lvsctl.faults.change import Change, added
from lvsctl.model.addresses import mac_for
from lvsctl.model.lab import Network, Role
from lvsctl.resources.ops import AddAddress, AddLink, AddRoute, DisableOffloads


def changes(scene: Scene) -> Iterator[Change]:
    """A cable to that network, an address there, and from there the way to the VIP."""
    director = scene.at(scene.lab.directors[0].name)
    for name, _, _ in director.neighbours(Role.REAL_SERVER):
        if name in scene.node.networks:
            continue
        network = scene.lab.network(name)
        address = _free_address(scene, network)
        yield added(_cable(scene, network, mac_for(address.ip)))
        yield added(DisableOffloads(netns=scene.netns, device=name))
        yield added(AddAddress(netns=scene.netns, device=name, address=address))
        dip = next(a.ip for a in director.node.addresses_on(name) if a.version == 4)
        for service in scene.services((NAT,)):
            if service.vip not in address.network:
                yield added(AddRoute(netns=scene.netns, to=ip_network(service.vip), via=dip))
        return


def _cable(scene: Scene, network: Network, mac: str) -> AddLink:
    """One more like those that are there, with indexes that nobody has."""
    cables = [op for op in scene.plan.ops if isinstance(op, AddLink)]
    there = [op for op in cables if op.netns == scene.lab.netns(network.name)]
    here = [op for op in cables if op.node_netns == scene.netns]
    return replace(
        there[-1],
        port=scene.node.name,
        port_index=max(op.port_index for op in there) + 1,
        node_netns=scene.netns,
        device=network.name,
        device_index=max(op.device_index for op in here) + 1,
        mac=mac,
    )


def _free_address(scene: Scene, network: Network) -> IPv4Interface:
    """The network's highest address that nobody has."""
    subnet = next(subnet for subnet in network.subnets if isinstance(subnet, IPv4Network))
    taken = {a.ip for node in scene.lab.nodes for a in node.addresses_on(network.name)}
    taken |= {service.vip for service in scene.lab.services}
    number = int(subnet.broadcast_address) - 1
    while (found := IPv4Interface((number, subnet.prefixlen))).ip in taken:
        number -= 1
    return found


FAULT = Fault(
    id="client-on-real-server-network",
    says="the client is on the real servers' network",
    modes=(NAT,),
    at=(Role.CLIENT,),
    changes=changes,
    symptom="replies go straight from the real server to the client, with the RIP as their source",
    breaks=(
        "nat.reply-crosses-director",
        "nat.client-never-sees-rip",
        "nat.both-directions-load-director",
        *NOBODY_ANSWERS,
    ),
)
