"""The route that a node should have, as the command that gives it back."""

from __future__ import annotations

from lvsctl.diagnosis.base import Case
from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Route
from lvsctl.plan.routing import routes_of


def route_remedy(case: Case, node: str, to: IPAddress) -> str:
    """What to type so that ``node`` sends packets for ``to`` where it should.

    A route that is more special than the right one is taken away; else the right one is put
    in its place.
    """
    actual = case.network.route(node, to)
    planned = _planned(case, node, to)
    length = actual.to.prefixlen if actual is not None and actual.to is not None else 0
    right = planned.to.prefixlen if planned is not None and planned.to is not None else 0
    beside = _beside(case, node, to)
    if beside is not None:
        network, prefix = beside
        if actual is not None and actual.to is not None and length >= ip_length(prefix):
            via = ("via", actual.via) if actual.via is not None else ()
            return case.type(node, "ip", "route", "del", actual.to, *via)
        return case.type(node, "ip", "route", "replace", prefix, "dev", network)
    if actual is not None and length > right:
        return case.type(node, "ip", "route", "del", actual.to or "default")
    if planned is None:
        return case.type(node, "ip", "route", "show")
    target = planned.to or "default"
    return case.type(node, "ip", "route", "replace", target, "via", planned.via)


def ip_length(prefix: object) -> int:
    """The length of a network's prefix."""
    return int(str(prefix).rpartition("/")[2])


def _planned(case: Case, node: str, to: IPAddress) -> Route | None:
    found = [
        route
        for route in routes_of(case.lab, case.lab.node(node))
        if route.via.version == to.version and (route.to is None or to in route.to)
    ]
    return max(found, key=lambda r: r.to.prefixlen if r.to is not None else -1, default=None)


def _beside(case: Case, node: str, to: IPAddress) -> tuple[str, object] | None:
    """The node's own network that ``to`` is on, by the topology."""
    for interface in case.lab.node(node).interfaces:
        for address in interface.addresses:
            if address.version == to.version and to in address.network:
                return interface.network, address.network
    return None
