"""Rules about hosts for which no request must be sent: MTUs, routes' limits, daemons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lvsctl.diagnosis.base import TUN, Case, Found, Rule
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.lab import USUAL_MTU, Network, Node, Role
from lvsctl.model.service import Protocol
from lvsctl.model.state import LinkState
from lvsctl.modes.tun import cost
from lvsctl.plan.routing import routes_of
from lvsctl.resources.keepalived import PROCESS
from lvsctl.resources.static_route import StaticRoute


class _Held(NamedTuple):
    """A host's interface on a network. One that was not read has no MTU, and is left out."""

    node: Node
    link: LinkState


def _on(case: Case, network: Network) -> tuple[_Held, ...]:
    return tuple(
        _Held(node, link)
        for node in case.lab.nodes
        if network.name in node.networks
        and (link := case.network.interface(node.name, network.name)) is not None
        and link.mtu
    )


def mtus(case: Case) -> Iterator[Found]:
    """Every interface carries packets as long as the topology says."""
    for network in case.lab.networks:
        held = _on(case, network)
        sizes = {one.link.mtu for one in held}
        given = network.mtu != USUAL_MTU or any(
            i.mtu for one in held for i in one.node.interfaces if i.network == network.name
        )
        if len(sizes) == 1 and len(held) > 1 and not given:
            size = next(iter(sizes))
            if size != network.mtu:
                yield Remark(
                    held[0].node.name,
                    f"network {network.name} has an MTU of {size} on every host, {network.mtu} in "
                    f"the topology (networks.{network.name}.mtu)",
                )
            continue
        for node, link in held:
            wanted = case.lab.mtu_of(node, network.name)
            if link.mtu == wanted:
                continue
            fact = f"{link.name} has an MTU of {link.mtu}, {wanted} in the topology"
            if link.mtu > wanted and len(sizes) == 1:
                yield Remark(node.name, fact)
                continue
            smaller = link.mtu < wanted
            yield Cause(
                fault="mtu-mismatch",
                node=node.name,
                text=f"{node.name} has a {'smaller' if smaller else 'larger'} MTU on "
                f"{network.name} than the topology says",
                evidence=(f"{node.name}: {fact}",),
                consequence=("small requests work, large ones hang: a switch does not fragment"),
                remedy=case.type(node.name, "ip", "link", "set", link.name, "mtu", wanted),
            )


def tunnels_fit(case: Case) -> Iterator[Found]:
    """A client's full-sized packet fits into the tunnel, or clients send smaller ones."""
    network = case.lab.network_of(case.vip)
    inside = case.network.interface(case.director, network.name) if network is not None else None
    if inside is None or not inside.mtu or case.endpoint.protocol is not Protocol.TCP:
        return
    for server in case.service.by(TUN):
        route = case.network.route(case.director, server.rip)
        link = case.state(case.director).link(route.device) if route is not None else None
        node = case.lab.node(server.node)
        announces = node.mss_clamp is not None or any(one.mss for one in node.routes)
        if link is None or not link.mtu or announces:
            continue
        room = link.mtu - cost(server)
        if room < inside.mtu:
            yield Remark(
                case.director,
                f"a packet of {inside.mtu} bytes, as {inside.name} takes it, does not fit into "
                f"the tunnels ({cost(server)} bytes, on {link.name} with an MTU of {link.mtu}): "
                "whether clients learn that by ICMP was not judged (verify shows it in a lab)",
            )
            return


def route_limits(case: Case) -> Iterator[Found]:
    """Routes limit packets and TCP's segments as the topology says."""
    for node in case.lab.nodes:
        state = case.state(node.name)
        for route in routes_of(case.lab, node):
            wanted = StaticRoute.limits(route.mtu, route.mss)
            there = [one for one in state.routes if (one.to, one.via) == (route.to, route.via)]
            if not wanted or not there or set(wanted) <= set(there[0].details):
                continue
            to = route.to or "default"
            has = " and ".join(there[0].details) or "neither mtu nor advmss"
            words = (word for limit in wanted for word in limit.split())
            yield Cause(
                fault="differs-from-topology",
                node=node.name,
                text=f"the route to {to} does not have {' and '.join(wanted)}",
                evidence=(f"{node.name}: the route to {to} via {route.via} has {has}",),
                consequence=(
                    "TCP peers send larger segments than the path carries; that they learn it "
                    "depends on ICMP then"
                ),
                remedy=case.type(node.name, "ip", "route", "replace", to, "via", route.via, *words),
            )


_ENDS_WITH = {
    PROCESS: "health checks and VRRP stand still: dead real servers stay in the table, and other "
    "directors take over while this one keeps its addresses",
    "ldirectord": "health checks stand still: dead real servers stay in the table",
}


def daemons(case: Case) -> Iterator[Found]:
    """No process that checks real servers, or decides who is master, is stopped or has ended."""
    for node in case.lab.having(Role.DIRECTOR):
        found = case.state(node.name).processes
        for name in dict.fromkeys(one.process for one in found):
            stopped = [one.pid for one in found if one.process == name and one.state == "T"]
            ended = [one.pid for one in found if one.process == name and one.state == "Z"]
            if stopped:
                yield Cause(
                    fault="process-stopped",
                    node=node.name,
                    text=f"{name} is stopped by a signal",
                    evidence=tuple(
                        f"{node.name}: {name} (process {pid}) is in state T (stopped)"
                        for pid in stopped
                    ),
                    consequence=_ENDS_WITH.get(name, "it does not do its work"),
                    remedy=case.type(node.name, "kill", "-CONT", *stopped),
                )
            elif ended:
                yield Cause(
                    fault="keepalived-stopped" if name == PROCESS else "process-stopped",
                    node=node.name,
                    text=f"a process of {name} has ended, and its parent takes no notice",
                    evidence=tuple(
                        f"{node.name}: {name} (process {pid}) is in state Z (zombie)"
                        for pid in ended
                    ),
                    consequence=_ENDS_WITH.get(name, "it does not do its work"),
                    remedy=case.type(node.name, "systemctl", "restart", name),
                )


def _read(case: Case) -> bool:
    """Whether hosts are judged, and no lab."""
    return bool(case.network.devices)


RULES = (
    Rule(
        find=mtus,
        applies=_read,
        rules_out="every interface has the topology's MTU",
    ),
    Rule(
        find=route_limits,
        applies=lambda case: (
            _read(case) and any(r.mtu or r.mss for node in case.lab.nodes for r in node.routes)
        ),
        rules_out="routes limit packets and segments as the topology says",
    ),
    Rule(
        find=tunnels_fit,
        applies=_read,
        modes=(TUN,),
        rules_out="full-sized packets fit into the tunnels",
    ),
    Rule(
        find=daemons,
        applies=_read,
        rules_out="no process of keepalived or ldirectord is stopped",
    ),
)
"""For hosts only: in a lab, frames and the whole state show the same."""
