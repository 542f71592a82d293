"""From an obstacle in a packet's way to the cause of it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

from lvsctl.diagnosis.base import NAT, Case, Cause, shown
from lvsctl.diagnosis.network import Obstacle, Trouble, Way
from lvsctl.diagnosis.remedies import route_remedy
from lvsctl.model.addresses import IPAddress
from lvsctl.model.frame import Frame
from lvsctl.model.lab import Role


class Leg(Enum):
    """Which part of the way."""

    REQUEST = auto()
    """Client to director."""
    FORWARDED = auto()
    """Director to real server."""
    REPLY = auto()
    """Real server to client."""


def obstacle_cause(case: Case, way: Way, leg: Leg, to: IPAddress) -> Iterator[Cause]:
    """The cause behind what stops a packet on its way to ``to``; nothing where it gets there."""
    obstacle = way.obstacle
    if obstacle is None:
        return
    match obstacle.trouble:
        case Trouble.NO_ROUTE:
            yield _no_route(case, obstacle, leg, to)
        case Trouble.NOT_FORWARDING:
            yield _not_forwarding(case, way, obstacle, leg, to)
        case Trouble.RP_FILTER:
            yield _filtering(case, obstacle, leg)
        case Trouble.STALE:
            if obstacle.address != case.vip:  # who knows the VIP's MAC is another rule's business
                yield _stale(case, obstacle, leg)
        case Trouble.NOBODY:
            yield from _nobody(case, obstacle, leg, to)
        case Trouble.LOOP:
            yield _wrong_hop(case, obstacle, way.hops[-1].node, leg, to)
        case Trouble.LINK_DOWN | Trouble.MARTIAN:
            pass  # said of the interface, or of who holds an address that is not its own


def _frames(case: Case, node: str, leg: Leg) -> tuple[Frame, ...]:
    """The packets of the leg that came to the node and went no further."""
    if leg is Leg.REPLY:
        return case.replies(node) or case.replies(node, out=True) or case.requests(node)
    return case.requests(node) or case.requests(node, out=True)


def _no_route(case: Case, obstacle: Obstacle, leg: Leg, to: IPAddress) -> Cause:
    node = obstacle.node
    role = case.lab.node(node).role
    if leg is Leg.REPLY and role is Role.REAL_SERVER:
        fault, says = "no-default-gateway", "a real server has no way to the client"
        consequence = "requests reach it and no reply leaves it"
    elif leg is Leg.FORWARDED:
        fault, says = "no-route-to-real-server", f"the {role} has no route to the real servers"
        consequence = f"requests enter {node} and do not get any further"
    else:
        whom = "the client" if leg is Leg.REPLY else "the VIP"
        fault, says = "no-route", f"the {role} {node} has no route to {whom}"
        consequence = f"packets for {to} end there"
    return Cause(
        fault=fault,
        node=node,
        says=says,
        evidence=(obstacle.fact, *shown(_frames(case, node, leg))),
        consequence=consequence,
        remedy=route_remedy(case, node, to),
    )


def _not_forwarding(case: Case, way: Way, obstacle: Obstacle, leg: Leg, to: IPAddress) -> Cause:
    node = obstacle.node
    role = case.lab.node(node).role
    key = "net.ipv4.ip_forward" if to.version == 4 else "net.ipv6.conf.all.forwarding"
    if role is Role.ROUTER:
        return Cause(
            fault="router-not-forwarding",
            node=node,
            says="the router does not forward",
            evidence=(f"{node}: {key}=0", *shown(_frames(case, node, leg))),
            consequence=f"packets for {to} enter {node} and nothing leaves it",
            remedy=case.sysctl(node, key, 1),
        )
    if role is Role.DIRECTOR and case.service.forward is NAT and leg is Leg.REPLY:
        return Cause(
            fault="ip-forward-off",
            node=node,
            says="the director does not forward",
            evidence=(f"{node}: {key}=0", *shown(case.replies(node))),
            consequence="the real servers' replies enter the director and do not leave it",
            remedy=case.sysctl(node, key, 1),
        )
    return _wrong_hop(case, obstacle, way.hops[-1].node, leg, to)


def _filtering(case: Case, obstacle: Obstacle, leg: Leg) -> Cause:
    node, device = obstacle.node, obstacle.device
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
        says=f"the {role} filters {what} by their source (reverse path filtering)",
        evidence=(obstacle.fact, *shown(_frames(case, node, leg))),
        consequence=f"{what} enter {node}, which drops them as forged",
        remedy=case.type(
            node, "sysctl", "-w", *(f"net.ipv4.conf.{name}.rp_filter=0" for name in names)
        ),
    )


def _stale(case: Case, obstacle: Obstacle, leg: Leg) -> Cause:
    node = obstacle.node
    return Cause(
        fault="stale-neighbour",
        node=node,
        says=f"{node} sends packets for {obstacle.address} to a MAC address that is not its",
        evidence=(
            obstacle.fact,
            *shown(
                case.replies(node, out=True) if leg is Leg.REPLY else case.requests(node, out=True)
            ),
        ),
        consequence="frames leave it for a network card that does not take them",
        remedy=case.type(node, *("ip", "neigh", "del", obstacle.address, "dev", obstacle.device)),
    )


def _nobody(case: Case, obstacle: Obstacle, leg: Leg, to: IPAddress) -> Iterator[Cause]:
    """The next hop is not there: it is off the network, or it was never anybody's address."""
    owner = next(
        (
            node.name
            for node in case.lab.nodes
            for interface in node.interfaces
            for address in interface.addresses
            if address.ip == obstacle.address and interface.network == obstacle.device
        ),
        "",
    )
    network = case.lab.network_of(case.vip)
    if obstacle.address == case.vip and network is not None and obstacle.device == network.name:
        return  # the director's own business: whether it holds the VIP and answers for it
    if not owner:
        yield _wrong_hop(case, obstacle, obstacle.node, leg, to)
        return
    held = [link for link in case.network.holders(owner, obstacle.address or to) if link.up]
    live = owner in case.network.connected(obstacle.device)
    if held and live:
        value = case.network.effective(owner, obstacle.device, "arp_ignore")
        yield Cause(
            fault="node-silent",
            node=owner,
            says=f"{owner} does not answer ARP questions for its own address",
            evidence=(f"{owner}: arp_ignore={value} counts for {obstacle.device}",),
            consequence=f"{obstacle.node} does not find it",
            remedy=case.sysctl(owner, "net.ipv4.conf.all.arp_ignore", 1),
        )


def _wrong_hop(case: Case, obstacle: Obstacle, node: str, leg: Leg, to: IPAddress) -> Cause:
    """A node that sends packets where nobody carries them on."""
    role = case.lab.node(node).role
    gateway = role is Role.REAL_SERVER and leg is Leg.REPLY
    if obstacle.trouble is Trouble.LOOP:
        fact = f"packets for {to} go round in circles, through {node}"
    else:
        fact = obstacle.fact
    if gateway and case.service.forward is NAT:
        says = "a real server's default gateway is not the director"
    elif gateway:
        says = "a real server's way to the client leads nowhere"
    else:
        says = f"the {role} {node} sends packets for {to} where nobody carries them on"
    return Cause(
        fault="wrong-gateway" if gateway else "wrong-next-hop",
        node=node,
        says=says,
        evidence=(fact, *shown(_frames(case, node, leg))),
        consequence="its packets end there",
        remedy=route_remedy(case, node, to),
    )
