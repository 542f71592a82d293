"""Which real host is which node of a topology, and the topology with what is only chosen there.

A topology that was imported has addresses for its directors, and prefix lengths, that are only
guesses: those of the hosts take their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_interface
from typing import NamedTuple

from lvsctl.engine.ask_hosts import Asked
from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.lab import Interface, Lab, Network, Node, Role
from lvsctl.model.state import NodeState

Way = Callable[[Lab, Asked], str]
"""Names the node that a host is; empty: none."""


def needed(lab: Lab) -> tuple[Node, ...]:
    """Return the nodes that must be collected for the whole to be judged."""
    return (*lab.directors, *lab.having(Role.REAL_SERVER))


def matches(lab: Lab, every: Iterable[Asked]) -> dict[str, Asked]:
    """Return each node's host.

    By the name that it is given, by its own name, by its addresses; a director by its virtual
    services; the last host for the last node, if it holds a VIP.
    """
    asked = tuple(every)
    found: dict[str, Asked] = {}
    taken: set[str] = set()

    def match(way: Way) -> None:
        for one in asked:
            node = way(lab, one)
            if one.name not in taken and node and node not in found:
                found[node] = one
                taken.add(one.name)

    for way in (_by_given_name, _by_own_name, _by_given_address):
        match(way)
    for director in lab.directors:
        left = (one for one in asked if one.name not in taken and _has_services(lab, one))
        if director.name not in found and (its := next(left, None)) is not None:
            found[director.name] = its
            taken.add(its.name)
    match(_by_address)
    _match_the_last(lab, found, [one for one in asked if one.name not in taken])
    return found


def _has_services(lab: Lab, one: Asked) -> bool:
    """Whether a host has a virtual service of the topology in its IPVS table."""
    known = {service.match for service in lab.services}
    return one.state is not None and any(s.match in known for s in one.state.state.services)


def likely_node(lab: Lab, one: Asked) -> str:
    """Return the node that a host would be, if no other host were it; empty: none."""
    return _by_own_name(lab, one) or _by_address(lab, one)


def _match_the_last(lab: Lab, found: dict[str, Asked], left: list[Asked]) -> None:
    """Match the last host to the last node if it holds a VIP: it has lost its own address."""
    nodes = [node.name for node in needed(lab) if node.name not in found]
    if len(nodes) != 1 or len(left) != 1 or left[0].state is None:
        return
    vips = {vip for service in lab.services for vip in service.vips}
    if any(a.ip in vips for link in left[0].state.state.links for a in link.addresses):
        found[nodes[0]] = left[0]


def _by_given_name(lab: Lab, one: Asked) -> str:
    return _named(lab, one.name)


def _by_own_name(lab: Lab, one: Asked) -> str:
    return _named(lab, one.state.name) if one.state is not None else ""


def _named(lab: Lab, name: str) -> str:
    names = {node.name for node in lab.nodes}
    return next((word for word in (name, name.partition(".")[0]) if word in names), "")


def _by_given_address(lab: Lab, one: Asked) -> str:
    """Of addresses that lvsctl chose, other nodes may have any."""
    chosen = {
        address.ip
        for node in lab.nodes
        if node.role is not Role.REAL_SERVER
        for interface in node.interfaces
        for address in interface.chosen
    }
    return _with_most(lab, one, chosen)


def _by_address(lab: Lab, one: Asked) -> str:
    return _with_most(lab, one, set())


def _with_most(lab: Lab, one: Asked, without: set[IPAddress]) -> str:
    """The node of whose addresses the host has most; of two with as many it is neither."""
    if one.state is None:
        return ""
    held = {a.ip for link in one.state.state.links for a in link.addresses} - without
    counts = {node.name: len(held.intersection(node.addresses)) for node in lab.nodes}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] and list(counts.values()).count(counts[best]) == 1 else ""


# ── what is only chosen ──────────────────────────────────────────────────────────────────────


class Adapted(NamedTuple):
    """A topology with its hosts' own values for what it does not give, and what was exchanged."""

    lab: Lab
    remarks: tuple[str, ...]


def adapt(lab: Lab, states: Mapping[str, NodeState]) -> Adapted:
    """Return ``lab`` as the hosts, by their nodes, show it where nothing was given."""
    remarks: list[str] = []
    for network in lab.networks:
        for subnet in network.subnets:
            wider = _on_hosts(lab, network, subnet, states)
            if wider is not None:
                text = f"network {network.name} is {wider} on every host, {subnet} in the topology"
                remarks.append(text)
                lab = _with_subnet(lab, network.name, subnet, wider)
    nodes = tuple(_moved(lab, node, states.get(node.name)) for node in lab.nodes)
    return Adapted(replace(lab, nodes=nodes), tuple(remarks))


def _on_hosts(
    lab: Lab, network: Network, subnet: IPNetwork, states: Mapping[str, NodeState]
) -> IPNetwork | None:
    """The subnet that all of several hosts have in place of ``subnet``; None: they do not."""
    own = {
        address.ip
        for node in lab.nodes
        for address in node.addresses_on(network.name)
        if address.ip in subnet
    }
    held = [
        address
        for name, state in states.items()
        if network.name in lab.node(name).networks
        for link in state.links
        for address in link.addresses
        if address.ip in own and address.network.prefixlen < address.max_prefixlen
    ]
    networks = {address.network for address in held}
    if len(held) < 2 or len(networks) != 1 or networks == {subnet}:
        return None
    (wider,) = networks
    return wider if all(address in wider for address in own) else None


def _with_subnet(lab: Lab, name: str, old: IPNetwork, new: IPNetwork) -> Lab:
    networks = tuple(
        replace(one, subnets=tuple(new if s == old else s for s in one.subnets))
        if one.name == name
        else one
        for one in lab.networks
    )

    def other(address: IPInterface) -> IPInterface:
        return ip_interface(f"{address.ip}/{new.prefixlen}") if address.network == old else address

    def moved(interface: Interface) -> Interface:
        return replace(
            interface,
            addresses=tuple(map(other, interface.addresses)),
            chosen=tuple(map(other, interface.chosen)),
        )

    nodes = tuple(
        replace(
            node, interfaces=tuple(moved(i) if i.network == name else i for i in node.interfaces)
        )
        for node in lab.nodes
    )
    return replace(lab, networks=networks, nodes=nodes)


def _moved(lab: Lab, node: Node, state: NodeState | None) -> Node:
    """A node with its host's addresses for chosen ones; a RIP is given by its service."""
    if state is None or node.role is Role.REAL_SERVER:
        return node
    others = {vip for service in lab.services for vip in service.vips} | set(lab.floating)
    others |= {address for one in lab.nodes if one != node for address in one.addresses}
    interfaces = tuple(_with_own(lab, one, state, others) for one in node.interfaces)
    return replace(node, interfaces=interfaces)


def _with_own(lab: Lab, one: Interface, state: NodeState, others: set[IPAddress]) -> Interface:
    held = [a for link in state.links if link.name != "lo" for a in link.addresses]
    addresses = list(one.addresses)
    for index, address in enumerate(addresses):
        subnets = [s for s in lab.network(one.network).subnets if s.version == address.version]
        if address not in one.chosen or any(a.ip == address.ip for a in held):
            continue
        found = next(_candidates(held, subnets, others), None)
        if found is not None:
            addresses[index] = found
    return replace(one, addresses=tuple(addresses))


def _candidates(
    held: Iterable[IPInterface], subnets: Iterable[IPNetwork], others: set[IPAddress]
) -> Iterator[IPInterface]:
    for subnet in subnets:
        for address in held:
            fits = address.version == subnet.version and address.ip in subnet
            if fits and address.ip not in others:
                yield ip_interface(f"{address.ip}/{subnet.prefixlen}")
