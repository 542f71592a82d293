"""What the links and nodes of a lab let through: the return path, and how much fits. Pure.

A link's rate is that of what a node sends on it (``lab.impairment_of``). The switches have none,
and so has what a node receives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab, Node, Role
from lvsctl.model.service import ForwardingMethod, RealServer, VirtualService
from lvsctl.plan.routing import gateway_directors, routes_of


class Way(NamedTuple):
    """A node that sends on a network: one hop of a path. ``rate`` in bits per second; 0: none."""

    node: str
    network: str
    rate: int


def reply_path(lab: Lab, service: VirtualService, server: str, client: Node) -> tuple[Way, ...]:
    """Return the hops of a reply, the real server's first; empty if no route leads to the client.

    With NAT the routes lead through the director: it is the real servers' gateway. With SNAT the
    real server answers the director itself.
    """
    vip = service.endpoint.vip
    target = _own(client, vip.version)
    if target is None:
        return ()
    if service.snat:
        director = lab.directors[0]
        own = (one for one in director.addresses if one.version == vip.version)
        paths = (_path(lab, lab.node(server), one) for one in own)
        first = min((path for path in paths if path), key=len, default=())
        return (*first, *_path(lab, director, target)) if first else ()
    return _path(lab, lab.node(server), target)


def unanswered(lab: Lab) -> tuple[str, ...]:
    """Return a sentence for each way in which replies reach no client, by the lab's routes.

    A reply ends where no route leads on, at a node that does not forward, and, without NAT, at a
    director: it has the VIP itself, and drops packets from there. With NAT it must pass one.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for service in lab.services:
        for server in service.remote:
            if why := _why_unanswered(lab, service, server):
                found.setdefault((service.name, why), []).append(server.node)
    return tuple(
        f"no reply of {_listed(nodes)} to requests for {service} reaches a client: {why}"
        for (service, why), nodes in found.items()
    )


def _listed(nodes: list[str]) -> str:
    return ", ".join(nodes) if len(nodes) <= 3 else f"{nodes[0]} … {nodes[-1]}"


def _why_unanswered(lab: Lab, service: VirtualService, server: RealServer) -> str:
    """Why the replies of a real server reach no client; empty: they reach one."""
    version = service.endpoint.vip.version
    clients = [one for one in lab.having(Role.CLIENT) if _own(one, version)]
    if not clients or service.snat:
        return ""
    ends = [_end(lab, reply_path(lab, service, server.node, one), server) for one in clients]
    return ends[0] if all(ends) else ""


def _end(lab: Lab, path: tuple[Way, ...], server: RealServer) -> str:
    """Why a reply ends on a path, or means nothing to the client; empty: it arrives."""
    directors = {node.name for node in lab.directors}
    nat = server.forward is ForwardingMethod.NAT
    if not path:
        return "no route leads to one"
    for way in path[1:]:
        node = lab.node(way.node)
        own = dict(node.sysctls)
        if nat and node.name in directors:
            return ""
        if node.name in directors and not any(key.endswith("accept_local") for key in own):
            return f"it would pass {node.name}, which drops packets from its own VIP"
        if node.role is not Role.ROUTER and own.get("net.ipv4.ip_forward") != "1":
            return f"{node.name} does not forward"
    return "it would not pass the director, which alone makes its source the VIP" if nat else ""


def throughput(paths: Iterable[Sequence[Way]]) -> float | None:
    """Return how many bits per second of replies get through; None where no link has a rate.

    ``paths`` are those of the real servers, which all send as much as they can. A link that is
    too small for what its senders send gives each the same share of that.
    """
    flows = {number: (tuple(path), inf) for number, path in enumerate(paths)}
    longest = max((len(path) for path, _ in flows.values()), default=0)
    for left in range(longest, 0, -1):  # hops left to the client: paths meet, and stay together
        sharing: dict[Way, list[int]] = {}
        for number, (path, _) in flows.items():
            if len(path) >= left:
                sharing.setdefault(path[-left], []).append(number)
        for way, members in sharing.items():
            total = sum(flows[number][1] for number in members)
            if not way.rate or total <= way.rate:
                continue
            for number in members:
                path, flow = flows[number]
                share = way.rate / len(members) if total == inf else flow * way.rate / total
                flows[number] = path, share
    total = sum(flow for _, flow in flows.values())
    return None if total == inf else total


def _own(node: Node, version: int) -> IPAddress | None:
    return next((one for one in node.addresses if one.version == version), None)


def _path(lab: Lab, node: Node, target: IPAddress) -> tuple[Way, ...]:
    gateways = gateway_directors(lab)
    found: list[Way] = []
    passed: set[str] = set()
    while node.name not in passed:
        passed.add(node.name)
        via = target
        network = _network_to(node, via)
        if network is None:
            routes = [
                one
                for one in routes_of(lab, node, gateways)
                if one.via.version == target.version and (one.to is None or target in one.to)
            ]
            if not routes:
                return ()
            via = max(routes, key=lambda one: one.to.prefixlen if one.to else 0).via
            network = _network_to(node, via)
            if network is None:
                return ()
        found.append(Way(node.name, network, lab.impairment_of(node, network).rate))
        if via == target:
            return tuple(found)
        holder = next((one for one in lab.nodes if via in one.addresses), None)
        if holder is None and via in lab.gateways:
            holder = lab.directors[0]
        if holder is None:
            return ()
        node = holder
    return ()


def _network_to(node: Node, address: IPAddress) -> str | None:
    """Return the network by which ``node`` reaches a neighbour."""
    for interface in node.interfaces:
        if any(address in one.network for one in interface.addresses):
            return interface.network
    return None
