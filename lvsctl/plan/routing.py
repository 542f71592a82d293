"""The routes that a lab's nodes need so that every network is reached.

Pure: a lab in, routes out. Only routers forward between networks; a director does
so for the real servers of a NAT service, whose default gateway it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from lvsctl.model.addresses import IPAddress, IPNetwork, host_route
from lvsctl.model.lab import Lab, Node, Role, Route
from lvsctl.model.service import VirtualService
from lvsctl.modes import MODES, placed_services

Routes = tuple[Route, ...]


def routes_of(lab: Lab, node: Node, gateways: Mapping[str, Node] | None = None) -> Routes:
    """The static routes of ``node``: derived ones, with the topology's own first.

    A derived route to where the topology has a route of its own is left out. Who asks for many
    nodes passes ``gateway_directors(lab)``.
    """
    director = (gateway_directors(lab) if gateways is None else gateways).get(node.name)
    own = {(route.to, route.via.version) for route in node.routes}
    derived = (*_derived(lab, node, director), *multipath_routes(lab, node))
    return (
        *node.routes,
        *(route for route in derived if (route.to, route.via.version) not in own),
    )


def multipath_routes(lab: Lab, node: Node) -> Routes:
    """The routes to the VIPs over several directors: of routers and clients beside all of them.

    Empty but where every director handles requests (``ha: ecmp``).
    """
    if not lab.ecmp or node.role not in (Role.ROUTER, Role.CLIENT):
        return ()
    found: dict[IPAddress, Route] = {}
    for vip in (vip for service in lab.services for vip in service.vips):
        network = lab.network_of(vip)
        if network is None or network.name not in node.networks:
            continue
        dips = (_address_on(one, network.name, vip.version) for one in lab.directors)
        first, *others = [dip for dip in dips if dip is not None]
        found[vip] = Route(host_route(vip).network, first, more=tuple(others))
    return tuple(found.values())


def gateway_directors(lab: Lab) -> dict[str, Node]:
    """Return the director that is a node's default gateway, by the node's name.

    Only for nodes of which a forwarding method requires it.
    """
    found: dict[str, Node] = {}
    for placed in placed_services(lab):
        if placed.service.snat:  # replies go to the director's own address
            continue
        for server in placed.service.remote:
            if MODES[server.forward].gateway_is_director:
                found.setdefault(server.node, placed.director)
    return found


def _derived(lab: Lab, node: Node, director: Node | None) -> Iterator[Route]:
    for version in (4, 6):
        if director is not None:
            via = _gateway(lab, node, director, version)
            if via is not None:
                yield Route(to=None, via=via)
        else:
            yield from _through_routers(lab, node, version)


def _through_routers(lab: Lab, node: Node, version: int) -> Iterator[Route]:
    hops = dict(_first_hops(lab, node, version))
    if not hops:
        return
    if node.role is Role.ROUTER:
        # No default route: two routers that point at each other would forward a packet with
        # an unknown destination to each other until its TTL expires.
        yield from (Route(to=subnet, via=via) for subnet, via in hops.items())
        return
    default = Counter(hops.values()).most_common(1)[0][0]
    yield Route(to=None, via=default)
    for subnet, via in hops.items():
        if via != default:
            yield Route(to=subnet, via=via)


def _first_hops(lab: Lab, node: Node, version: int) -> Iterator[tuple[IPNetwork, IPAddress]]:
    """Each subnet that ``node`` is not on, with the first router on a shortest path to it."""
    first = _ways(lab, node, version)
    for network in lab.networks:
        if network.name in first:
            for subnet in network.subnets:
                if subnet.version == version:
                    yield subnet, first[network.name]


def _ways(lab: Lab, node: Node, version: int) -> dict[str, IPAddress]:
    """The next hop to each network that ``node`` is not on. Breadth first."""
    first: dict[str, IPAddress] = {}
    frontier = list(node.networks)
    while frontier:
        here = frontier.pop(0)
        for router in lab.having(Role.ROUTER):
            if router.name == node.name or here not in router.networks:
                continue
            via = first.get(here) or _address_on(router, here, version)
            for there in router.networks:
                if via is not None and there not in first and there not in node.networks:
                    first[there] = via
                    frontier.append(there)
    return first


def _address_on(node: Node, network: str, version: int) -> IPAddress | None:
    for interface in node.addresses_on(network):
        if interface.version == version:
            return interface.ip
    return None


def _gateway(lab: Lab, node: Node, director: Node, version: int) -> IPAddress | None:
    """The director's address that a node's replies are sent to: with several, a virtual one."""
    if director.ha is None:
        return _address_shared(node, director, version)
    for network in node.networks:
        for subnet in lab.network(network).subnets:
            for one in director.ha.gateways:
                if one.version == version and one in subnet:
                    return one
    return None


def _address_shared(node: Node, other: Node, version: int) -> IPAddress | None:
    """An address of ``other`` on a network that ``node`` is on as well."""
    for network in node.networks:
        address = _address_on(other, network, version)
        if address is not None:
            return address
    return None


def clients_of(lab: Lab, service: VirtualService) -> tuple[Node, ...]:
    """The clients that reach the service's VIP, by its network or by a route.

    The default client if none does, because its request shows what is missing.
    """
    vip = service.endpoint.vip
    return tuple(node for node in lab.having(Role.CLIENT) if _reaches(lab, node, vip)) or (
        lab.default_client,
    )


def _reaches(lab: Lab, node: Node, vip: IPAddress, passed: tuple[str, ...] = ()) -> bool:
    """Whether packets for ``vip`` get from ``node`` to its network or to a director, by routes."""
    if any(vip in address.network for i in node.interfaces for address in i.addresses):
        return True
    routes = [
        route
        for route in routes_of(lab, node)
        if route.via.version == vip.version and (route.to is None or vip in route.to)
    ]
    for route in sorted(routes, key=lambda one: one.to.prefixlen if one.to else 0, reverse=True):
        for other in lab.nodes:
            if other.name in (node.name, *passed) or not _holds(other, route.via):
                continue
            if other.role is Role.DIRECTOR or _reaches(lab, other, vip, (*passed, node.name)):
                return True
    return False


def _holds(node: Node, address: IPAddress) -> bool:
    return any(held.ip == address for i in node.interfaces for held in i.addresses)
