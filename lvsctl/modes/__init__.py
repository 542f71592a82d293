"""The forwarding methods: one file each, and the table of them."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.model.addresses import family_of
from lvsctl.model.lab import Lab, Violation
from lvsctl.model.service import ForwardingMethod
from lvsctl.modes.base import Mode, Placed
from lvsctl.modes.dr import DirectRouting
from lvsctl.modes.nat import Nat
from lvsctl.modes.tun import Tunneling

MODES: dict[ForwardingMethod, Mode] = {
    mode.method: mode for mode in (Nat(), Tunneling(), DirectRouting())
}
"""Every forwarding method that lvsctl knows."""


def placed_services(lab: Lab) -> Iterator[Placed]:
    """Each virtual service of the lab on each of its directors."""
    for director in lab.directors:
        for index, service in enumerate(lab.services):
            yield Placed(lab, index, service, director)


def violations(lab: Lab) -> Iterator[Violation]:
    """Every rule of a forwarding method that the lab breaks, each once."""
    found: dict[Violation, None] = {}
    for placed in placed_services(lab):
        found.update(dict.fromkeys(_two_directors(placed)))
        found.update(dict.fromkeys(_by_several(placed)))
        found.update(dict.fromkeys(_local_of_several(placed)))
        found.update(dict.fromkeys(_other_version(placed)))
        found.update(dict.fromkeys(_two_gateways(placed)))
        for method in placed.service.methods:
            found.update(dict.fromkeys(MODES[method].violations(placed)))
    yield from found


def _two_directors(placed: Placed) -> Iterator[Violation]:
    """Two directors with the same VIP would both answer ARP requests for it."""
    first, *others = placed.lab.directors
    shared = placed.lab.ecmp or all(node.ha for node in placed.lab.directors)
    if others and not shared:
        yield Violation(
            path=("services", placed.index, "vip"),
            message=(
                f"{first.name} and {others[0].name} would both hold {placed.service.endpoint.vip} "
                "and answer for it: one of them at a time must"
            ),
            hint="write `ha: vrrp` (or `ha: ecmp`) at every director, or let one node have "
            "`role: director`",
        )


_NOT_BY_SEVERAL = {
    ForwardingMethod.NAT: "by nat its replies go to one gateway, and only the director that has "
    "the connection can rewrite them",
    ForwardingMethod.DR: "by dr all directors would answer ARP requests for the VIP on the real "
    "servers' network",
}


def _by_several(placed: Placed) -> Iterator[Violation]:
    """Where every director handles requests, a tunnel is what leads to real servers anywhere."""
    if not placed.lab.ecmp:
        return
    for position, server in enumerate(placed.service.real_servers):
        why = _NOT_BY_SEVERAL.get(server.forward)
        if why is not None:
            yield Violation(
                path=("services", placed.index, "real_servers", position),
                message=f"{server.node} gets requests from several directors (ha: ecmp): {why}",
                hint="`forward: tun`, or `ha: vrrp`",
            )


def _local_of_several(placed: Placed) -> Iterator[Violation]:
    """A director that is a real server too would be one of the other director's as well."""
    if len(placed.lab.directors) < 2:
        return
    for position, server in enumerate(placed.service.real_servers):
        if server.local:
            yield Violation(
                path=("services", placed.index, "real_servers", position),
                message=f"{server.node} is one of several directors: only a lab's single director "
                "can be a real server too",
                hint="remove it, or write one node with `role: director`",
            )


def _other_version(placed: Placed) -> Iterator[Violation]:
    """Only a tunnel carries requests to an address of another IP version than the VIP's."""
    vip = placed.service.endpoint.vip
    for position, server in enumerate(placed.service.real_servers):
        if server.rip.version == vip.version or server.forward is ForwardingMethod.TUN:
            continue
        wanted, other = family_of(vip).name, family_of(server.rip).name
        yield Violation(
            path=("services", placed.index, "real_servers", position, "family"),
            message=(
                f"{server.forward} cannot send {wanted} requests to an {other} address of "
                f"{server.node}: it leaves them {wanted} packets"
            ),
            hint=f"`family: {wanted.lower()}`, or `forward: tun`, which puts it into an {other} "
            "packet",
        )


def _two_gateways(placed: Placed) -> Iterator[Violation]:
    """A real server has one default gateway: the director (NAT) or a router (TUN, DR)."""
    if placed.service.snat:
        return
    behind = {
        server.node: other
        for other in placed.lab.services
        if not other.snat
        for server in other.remote
        if MODES[server.forward].gateway_is_director
    }
    for position, server in enumerate(placed.service.real_servers):
        other = behind.get(server.node)
        if other is not None and not server.local and not MODES[server.forward].gateway_is_director:
            yield Violation(
                path=("services", placed.index, "real_servers", position),
                message=(
                    f"{server.node} serves {other.name} by nat, so its default gateway "
                    f"is the director; by {server.forward} its replies would go there too "
                    "and be dropped, because their source, the VIP, is the director's own address"
                ),
                hint=f"use other real servers for {placed.service.name}",
            )
