"""Name the cause that blocks a packet's path, and the command that restores a route."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import Enum, auto

from lvsctl.diagnosis.base import NAT, Case, Found, shown
from lvsctl.diagnosis.network import Block, BlockReason, Hop, Path
from lvsctl.diagnosis.route_lookup import Lookup
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.frame import Frame
from lvsctl.model.lab import Role, Route
from lvsctl.model.service import ForwardingMethod
from lvsctl.model.state import RouteState, RuleState
from lvsctl.plan.routing import gateway_directors, routes_of


class Leg(Enum):
    """A part of the path."""

    REQUEST = auto()
    """Client to director."""
    FORWARDED = auto()
    """Director to real server."""
    REPLY = auto()
    """Real server to client."""


def block_cause(case: Case, path: Path, leg: Leg, to: IPAddress) -> Iterator[Found]:
    """Name the cause that blocks the path to ``to``; nothing if the packet arrives."""
    block = path.block
    if block is None:
        return
    match block.reason:
        case BlockReason.NO_ROUTE | BlockReason.REFUSED:
            found = block.lookup
            yield (
                _refused(case, block, found, leg, to) if found else _no_route(case, block, leg, to)
            )
        case BlockReason.NOT_FORWARDING:
            yield _not_forwarding(case, path, block, leg, to)
        case BlockReason.RP_FILTER:
            yield _filtering(case, block, leg)
        case BlockReason.STALE_NEIGHBOUR:
            if (
                block.address != case.vip
            ):  # neighbour entries of the VIP are checked by another rule
                yield _stale(case, block, leg)
        case BlockReason.NO_OWNER:
            yield from _no_owner(case, block, leg, to)
        case BlockReason.LOOP:
            yield _wrong_hop(case, block, path.hops[-1], leg, to)
        case BlockReason.LINK_DOWN | BlockReason.NO_ADDRESS | BlockReason.MARTIAN:
            pass  # checked by the rules for interfaces and addresses


def _frames(case: Case, node: str, leg: Leg) -> tuple[Frame, ...]:
    """Packets of the leg at the node where they end."""
    if leg is Leg.REPLY:
        return case.replies(node) or case.replies(node, out=True) or case.requests(node)
    return case.requests(node) or case.requests(node, out=True)


def _no_route(case: Case, block: Block, leg: Leg, to: IPAddress) -> Cause:
    node = block.node
    role = case.lab.node(node).role
    if leg is Leg.REPLY and role is Role.REAL_SERVER:
        fault, says = "no-default-gateway", "a real server has no route to the client"
        consequence = "requests reach it but no reply leaves it"
    elif leg is Leg.FORWARDED:
        fault, says = "no-route-to-real-server", f"the {role} has no route to the real servers"
        consequence = f"requests enter {node} but do not leave it"
    else:
        whom = "the client" if leg is Leg.REPLY else "the VIP"
        fault, says = "no-route", f"the {role} {node} has no route to {whom}"
        consequence = f"packets for {to} are dropped there"
    return Cause(
        fault=fault,
        node=node,
        text=says,
        evidence=(block.fact, *shown(_frames(case, node, leg))),
        consequence=consequence,
        remedy=route_remedy(case, node, to),
    )


def _refused(case: Case, block: Block, found: Lookup, leg: Leg, to: IPAddress) -> Cause:
    node = block.node
    if found.rule is not None:
        what = f"a rule of policy routing ({found.rule.text})"
        remedy = rule_remedy(case, node, found.rule)
    else:
        route = found.route.to if found.route is not None else None
        what = f"a route ({found.refused} {route or 'default'})"
        by_object = found.route.by_object if found.route is not None else ()
        words = (
            (route or "default", *by_object) if by_object else (found.refused, route or "default")
        )
        remedy = case.type(node, "ip", f"-{to.version}", "route", "del", *words)
    return Cause(
        fault="packets-refused",
        node=node,
        text=f"{what} of {node} refuses packets",  # once, whatever they are sent to
        evidence=(block.fact, *shown(_frames(case, node, leg))),
        consequence=f"packets for {to} are dropped there",
        remedy=remedy,
    )


def rule_remedy(case: Case, node: str, rule: RuleState) -> str:
    """The command that deletes a rule of policy routing."""
    version = f"-{rule.version}"
    words = ("ip", version, "rule", "del", "pref", rule.preference, *rule.text.split())
    return case.type(node, *words)


def _not_forwarding(case: Case, path: Path, block: Block, leg: Leg, to: IPAddress) -> Cause:
    node = block.node
    role = case.lab.node(node).role
    key = case.network.forwarding_key(node, to.version, block.device)
    if role is Role.ROUTER:
        return Cause(
            fault="router-not-forwarding",
            node=node,
            text="the router does not forward",
            evidence=(f"{node}: {key}=0", *shown(_frames(case, node, leg))),
            consequence=f"packets for {to} enter {node} but do not leave it",
            remedy=case.sysctl(node, key, 1),
        )
    if role is Role.DIRECTOR and NAT in case.service.methods and leg is Leg.REPLY:
        return Cause(
            fault="ip-forward-off",
            node=node,
            text="the director does not forward",
            evidence=(f"{node}: {key}=0", *shown(case.replies(node))),
            consequence="the real servers' replies enter the director but do not leave it",
            remedy=case.sysctl(node, key, 1),
        )
    return _wrong_hop(case, block, path.hops[-1], leg, to)


def _filtering(case: Case, block: Block, leg: Leg) -> Cause:
    node, device = block.node, block.device
    role = case.lab.node(node).role
    names = [
        name
        for name in ("all", device)
        if case.network.number(node, f"net.ipv4.conf.{name}.rp_filter")
    ]
    what = "replies" if leg is Leg.REPLY else "requests"
    return Cause(
        fault=f"rp-filter-on-{role}",
        node=node,
        text=f"the {role} drops {what} by their source (reverse path filtering)",
        evidence=(block.fact, *shown(_frames(case, node, leg))),
        consequence=f"{what} enter {node}, which drops them as spoofed",
        remedy=case.type(
            node, "sysctl", "-w", *(f"net.ipv4.conf.{name}.rp_filter=0" for name in names)
        ),
    )


def _stale(case: Case, block: Block, leg: Leg) -> Cause:
    node = block.node
    return Cause(
        fault="stale-neighbour",
        node=node,
        text=f"{node} sends packets for {block.address} to the wrong MAC address",
        evidence=(
            block.fact,
            *shown(
                case.replies(node, out=True) if leg is Leg.REPLY else case.requests(node, out=True)
            ),
        ),
        consequence="the frames are addressed to a network card that does not accept them",
        remedy=case.type(node, *("ip", "neigh", "del", block.address, "dev", block.device)),
    )


def _no_owner(case: Case, block: Block, leg: Leg, to: IPAddress) -> Iterator[Found]:
    """No node answers for the next hop: it is disconnected, or no node has the address."""
    owner = next(
        (
            node.name
            for node in case.lab.nodes
            for interface in node.interfaces
            for address in interface.addresses
            if address.ip == block.address and interface.network == block.device
        ),
        "",
    )
    network = case.lab.network_of(case.vip)
    if block.address == case.vip and network is not None and block.device == network.name:
        return  # checked by the rule for the director's VIP
    if not owner and case.by_state and not _must_be_director(case, block, leg):
        yield Remark(
            block.node,
            f"sends packets for {to} to {block.address}, which no node of the topology has: what "
            "becomes of them there was not read",
        )
        return
    if not owner:
        yield _wrong_hop(case, block, None, leg, to)
        return
    held = [link for link in case.network.holders(owner, block.address or to) if link.up]
    live = owner in case.network.connected(block.device)
    if held and live and owner != block.node:
        device = case.network.device(owner, block.device)
        value = case.network.effective(owner, device, "arp_ignore")
        yield Cause(
            fault="node-silent",
            node=owner,
            text=f"{owner} does not answer ARP requests for its own address",
            evidence=(f"{owner}: arp_ignore={value} counts for {device}",),
            consequence=f"{block.node} cannot resolve its address",
            # Not 0: a real server must not answer for the VIP either. The larger one applies.
            remedy=case.type(
                owner,
                *("sysctl", "-w", "net.ipv4.conf.all.arp_ignore=1"),
                f"net.ipv4.conf.{device}.arp_ignore=1",
            ),
        )


def _must_be_director(case: Case, block: Block, leg: Leg) -> bool:
    """Whether a next hop that is no director's is wrong, whatever it is."""
    real_server = case.lab.node(block.node).role is Role.REAL_SERVER
    return leg is Leg.REPLY and real_server and NAT in _methods(case, block.node)


def _wrong_hop(case: Case, block: Block, hop: Hop | None, leg: Leg, to: IPAddress) -> Cause:
    node = hop.node if hop is not None else block.node
    """A node sends packets to a next hop that does not forward them."""
    role = case.lab.node(node).role
    gateway = role is Role.REAL_SERVER and leg is Leg.REPLY
    if block.reason is BlockReason.LOOP:
        fact = f"packets for {to} loop through {node}"
    else:
        fact = block.fact
    if gateway and NAT in _methods(case, node):
        says = "a real server's default gateway is not the director"
    elif gateway:
        says = "a real server's next hop to the client does not forward"
    else:
        says = f"the {role} {node} sends packets for {to} to a next hop that does not forward them"
    return Cause(
        fault="wrong-gateway" if gateway else "wrong-next-hop",
        node=node,
        text=says,
        evidence=(fact, *shown(_frames(case, node, leg))),
        consequence="its packets are dropped there",
        remedy=route_remedy(case, node, to, hop.rule if hop is not None else None),
    )


def route_remedy(case: Case, node: str, to: IPAddress, rule: RuleState | None = None) -> str:
    """The command that makes ``node`` send packets for ``to`` to the right next hop.

    A foreign ``rule`` of policy routing that leads elsewhere is deleted, and so is a more
    specific wrong route, or one beside the right one; otherwise the right one replaces it.
    """
    if rule is not None:
        return rule_remedy(case, node, rule)
    actual = case.network.route(node, to)
    planned = _planned(case, node, to)
    if (right_hop := _director_for(case, node, to)) and planned and planned.via != right_hop:
        # The topology itself names another one: `up` would make it so again.
        target = planned.to or "default"
        command = case.type(node, "ip", "route", "replace", target, "via", right_hop)
        return f"{command}  # and take its route out of the topology"
    length = actual.to.prefixlen if actual is not None and actual.to is not None else 0
    right = planned.to.prefixlen if planned is not None and planned.to is not None else 0
    beside = _beside(case, node, to)
    if beside is not None:
        network, prefix = beside
        if actual is None or actual.to is None or length < ip_length(prefix):
            device = case.network.device(node, network)
            return case.type(node, "ip", "route", "replace", prefix, "dev", device)
    if actual is not None and (
        beside is not None or length > right or _both(case, node, planned, actual)
    ):
        via = ("via", actual.via) if actual.via is not None else ()
        words = actual.by_object or via
        return case.type(node, "ip", "route", "del", actual.to or "default", *words)
    if planned is None:  # the topology has no way there, and `up` makes none
        return f"{case.restore(node)}  # after adding a router to the topology that leads to {to}"
    target = planned.to or "default"
    return case.type(node, "ip", "route", "replace", target, "via", planned.via)


def _both(case: Case, node: str, planned: Route | None, actual: RouteState | None) -> bool:
    """Whether the right route exists, and a wrong one is preferred to it."""
    if planned is None or (actual is not None and actual.hops > 1):
        return False  # of a route over several next hops, none can be deleted by itself
    routes = case.state(node).routes
    return any((one.to, one.via) == (planned.to, planned.via) for one in routes)


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


def _director_for(case: Case, node: str, to: IPAddress) -> IPAddress | None:
    """The next hop of a real server that only NAT sends requests to: its director; else None."""
    server = case.lab.node(node)
    if gateway_directors(case.lab).get(node) is None or _methods(case, node) != {NAT}:
        return None
    derived = routes_of(case.lab, replace(server, routes=()))
    defaults = (one.via for one in derived if one.to is None)
    return next((via for via in defaults if via.version == to.version), None)


def _beside(case: Case, node: str, to: IPAddress) -> tuple[str, object] | None:
    """The node's own network that contains ``to``, according to the topology."""
    for interface in case.lab.node(node).interfaces:
        for address in interface.addresses:
            if address.version == to.version and to in address.network:
                return interface.network, address.network
    return None


def _methods(case: Case, node: str) -> set[ForwardingMethod]:
    """The forwarding methods by which a real server gets its requests."""
    return {server.forward for server in case.service.real_servers if server.node == node}
