"""A configuration's own routes as a lab's directors can have them.

A lab has one router on each network. It gets the address of the gateway that the file names there,
so that the file's routes lead where the lab's own would.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from lvsctl.formats.configuration import Configuration, Notes, RouteLine
from lvsctl.formats.surroundings import Segment, Surroundings
from lvsctl.model.addresses import IPAddress, IPNetwork
from lvsctl.topology.addresses import unusable_because

Gateways = dict[tuple[str, int], IPAddress]
"""The router's addresses, by network and IP version."""


class KeptRoutes(NamedTuple):
    """The routes of every director, and the router's own addresses that they need."""

    routes: tuple[RouteLine, ...]
    gateways: Gateways


def kept_routes(
    configuration: Configuration, around: Surroundings, own: Collection[IPAddress], notes: Notes
) -> KeptRoutes:
    """Return what of a file's routes a lab can have; the others are noted with the reason.

    ``own`` are addresses that directors and real servers have: no router can take them.
    """
    gateways: Gateways = {}
    inside = [subnet for one in around.segments for subnet in one.subnets.values()]

    def needed(route: RouteLine) -> int:
        """Those first whose gateway must be the lab's router: the default route's above all."""
        if route.to is None:
            return 0
        to = route.to
        return 1 if any(s.version == to.version and s.overlaps(to) for s in inside) else 2

    in_turn = sorted(configuration.routes, key=needed)
    found = [route for route in in_turn if _fits(route, around, own, gateways, notes)]
    return KeptRoutes(tuple(found), gateways)


def _fits(
    route: RouteLine,
    around: Surroundings,
    own: Collection[IPAddress],
    gateways: Gateways,
    notes: Notes,
) -> bool:
    to, via = route.to, route.via
    named = f"the route to {to or 'default'} via {via}"
    segment = next((one for one in around.director if is_on(one, via)), None)
    if segment is None:
        notes.remark(route.place, f"{named}: the gateway is on no network of the lab's directors")
        return False
    if to is not None and any(s.overlaps(to) for s in _subnets(around.director, via.version)):
        notes.remark(route.place, f"{named}: the lab's directors are on that network")
        return False
    place = (segment.name, via.version)
    routed = any(one is segment for one in around.router) and via not in own
    if routed and gateways.setdefault(place, via) == via:
        return True
    inside = _subnets(around.segments, via.version)
    if to is None or any(subnet.overlaps(to) for subnet in inside):
        why = (
            "another gateway is the lab's router there" if routed else "it is no router in the lab"
        )
        notes.remark(route.place, f"{named}: {why}, and the lab's own networks are behind it")
        return False
    if via not in own:
        notes.remark(route.place, f"{named}: the directors have it, but no node has the gateway")
    return True


def is_on(segment: Segment, address: IPAddress) -> bool:
    """Return whether a host on a network can have an address."""
    subnet = segment.subnets.get(address.version)
    return subnet is not None and address in subnet and not unusable_because(subnet, address)


def _subnets(segments: Collection[Segment], version: int) -> list[IPNetwork]:
    return [one.subnets[version] for one in segments if version in one.subnets]


def router_networks(around: Surroundings, gateways: Gateways) -> str:
    """Return the value of the router's key ``networks``."""
    if not gateways:
        return f"[{', '.join(one.name for one in around.router)}]"
    entries = (f"{one.name}: {_addresses(one, gateways)}" for one in around.router)
    return f"{{{', '.join(entries)}}}"


def _addresses(segment: Segment, gateways: Gateways) -> str:
    own = [gateways[segment.name, version] for version in (4, 6)
           if (segment.name, version) in gateways]  # fmt: skip
    words = [f"'{one}'" if one.version == 6 else str(one) for one in own]
    return words[0] if len(words) == 1 else f"[{', '.join(words)}]" if words else "null"


def route_entries(routes: Collection[RouteLine]) -> Iterator[str]:
    """Yield the entries of a director's key ``routes``."""
    for one in dict.fromkeys((r.to, r.via, r.mtu, r.mss) for r in routes):
        to, via, mtu, mss = one
        words = [f"to: {_quoted(to)}" if to is not None else "to: default", f"via: {_quoted(via)}"]
        words += [f"mtu: {mtu}"] * bool(mtu) + [f"mss: {mss}"] * bool(mss)
        yield f"{{{', '.join(words)}}}"


def _quoted(value: IPAddress | IPNetwork) -> str:
    return f"'{value}'" if value.version == 6 else str(value)
