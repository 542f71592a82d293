"""The state of a node that is as its plan says: what stands for nodes that were not read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Address
from itertools import count

from lvsctl.model.addresses import IPAddress, IPInterface, host_route
from lvsctl.model.lab import Lab, Node
from lvsctl.model.state import LinkState, ListenerState, NodeState, RouteState
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel

_LOOPBACK = IPv4Interface("127.0.0.1/8")


def assumed_state(lab: Lab, node: Node, resources: Iterable[Resource]) -> NodeState:
    """Return the state of ``node`` after ``resources``, those of the lab's plan, were applied.

    Its interfaces have no MAC addresses, and its IPVS table is empty.
    """
    netns = lab.netns(node.name)
    mine = [one for one in resources if one.netns == netns]
    links = tuple(_links(node, mine))
    ports = [one for one in mine if isinstance(one, ResponderPort)]
    return NodeState(
        netns=netns,
        links=links,
        routes=tuple(_routes(node, links, mine)),
        sysctls={one.name: one.value for one in mine if isinstance(one, Sysctl)},
        listeners=tuple(ListenerState(one.protocol, IPv6Address("::"), one.port) for one in ports),
        gue_ports=tuple(one.port for one in mine if isinstance(one, GuePort)),
    )


def holding(state: NodeState, addresses: Iterable[IPAddress], device: str) -> NodeState:
    """Return the state with further addresses on a device, as a director that is master has."""
    more = tuple(map(host_route, addresses))
    links = (
        replace(link, addresses=(*link.addresses, *more)) if link.name == device else link
        for link in state.links
    )
    return replace(state, links=tuple(links))


def _links(node: Node, mine: Iterable[Resource]) -> Iterator[LinkState]:
    held: dict[str, list[IPInterface]] = {"lo": [_LOOPBACK]}
    kinds = {"lo": ""}
    for network in node.networks:
        held[network], kinds[network] = [], "veth"
    for one in mine:
        if isinstance(one, Tunnel):
            held[one.device], kinds[one.device] = [], str(one.kind)
    for one in mine:
        if isinstance(one, Address) and one.device in held:
            held[one.device].append(one.address)
    numbers = count(1)
    for name, addresses in held.items():
        yield LinkState(
            name=name,
            index=next(numbers),
            kind=kinds[name],
            mac="",
            mtu=0,
            up=True,
            carrier=True,
            addresses=tuple(addresses),
        )


def _routes(
    node: Node, links: Iterable[LinkState], mine: Iterable[Resource]
) -> Iterator[RouteState]:
    on_link = [
        (a.network, link.name) for link in links if link.name != "lo" for a in link.addresses
    ]
    for network, device in on_link:
        if network.prefixlen < network.max_prefixlen:
            yield RouteState(network, None, device, kernel=True, version=network.version)
    for one in mine:
        if isinstance(one, StaticRoute) and one.via is not None:
            via = one.via
            device = next((name for network, name in on_link if via in network), node.networks[0])
            yield RouteState(one.to, via, device, kernel=False, version=via.version)
