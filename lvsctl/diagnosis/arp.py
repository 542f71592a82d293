"""Rules about ARP for the VIP (the "ARP problem"): who answers, and who uses it as sender.

They matter where real servers that hold the VIP are on the VIP's own network. Captured frames
outweigh settings: a real server that received a request and did not answer is suppressed by
something else.
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.claims.neighbours import CONFIGURED, wrong_neighbours
from lvsctl.diagnosis.base import DR, TUN, Case, Found, Rule, shown
from lvsctl.diagnosis.proxies import answering_for_others
from lvsctl.model.addresses import host_route
from lvsctl.model.claim import Cause, Remark
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Node
from lvsctl.model.state import NeighbourState


def _exposed(case: Case) -> Iterator[tuple[Node, str]]:
    """Real servers that hold the VIP and are on its network, with their device there."""
    network = case.lab.network_of(case.vip)
    if network is None:
        return
    for _, node in case.members():
        if case.network.local(node.name, case.vip) and network.name in node.networks:
            yield node, case.network.device(node.name, network.name)


def _arp(case: Case, node: str, direction: Direction | None = None) -> Iterator[Frame]:
    for frame in case.trace.at(node):
        if frame.arp is not None and (direction is None or frame.direction is direction):
            yield frame


def advertised(case: Case) -> Iterator[Found]:
    """Only the director answers neighbour solicitations for an IPv6 VIP.

    A real server does so if its VIP is on the interface that receives them (RFC 4861).
    """
    if case.vip.version != 6:
        return
    for node, device in _exposed(case):
        on_device = [link for link in case.network.holders(node.name, case.vip)
                     if link.name == device]  # fmt: skip
        if not on_device:
            continue
        held = next(a for link in on_device for a in link.addresses if a.ip == case.vip)
        frames = list(case.trace.at(node.name))
        seen = [f for f in frames if f.direction is Direction.OUT and f.answers_for == case.vip]
        asked = [f for f in frames if f.direction.inward and f.asks_for == case.vip]
        if asked and not seen:
            yield Remark(node.name, f"{held} is on {device}, but it did not answer for it")
            continue
        yield Cause(
            fault="vip-on-lan",
            node=node.name,
            text="a real server holds the VIP on its LAN interface instead of its loopback device",
            evidence=(
                f"{node.name}: {held} on {device}, so it answers neighbour solicitations for it",
                *shown(seen),
            ),
            consequence=(
                f"{node.name} answers for {case.vip} as the director does; neighbours that accept "
                "its advertisement bypass the director"
            ),
            remedy=f"{case.type(node.name, 'ip', 'addr', 'replace', host_route(case.vip))} dev lo "
            f"&& {case.type(node.name, 'ip', 'addr', 'del', held, 'dev', device)}",
        )


def answers(case: Case) -> Iterator[Found]:
    """Only the director answers ARP requests for the VIP."""
    if case.vip.version != 4:
        return
    for node, device in _exposed(case):
        network = case.network
        answered = [
            f
            for f in _arp(case, node.name, Direction.OUT)
            if f.arp is not None and f.arp.is_reply and f.arp.sender_ip == case.vip
        ]
        if not answered and not network.answers(node.name, device, case.vip):
            continue
        heard = [
            f
            for f in _arp(case, node.name)
            if f.arp is not None
            and f.arp.is_request
            and f.arp.target_ip == case.vip
            and f.direction in (Direction.IN, Direction.BROADCAST)
        ]
        if heard and not answered:
            yield Remark(node.name, "arp_ignore allows it to answer for the VIP, but it did not")
            continue
        yield _answering(case, node.name, device, shown(answered))


def _answering(case: Case, node: str, device: str, seen: tuple[str, ...]) -> Cause:
    network, vip = case.network, case.vip
    value = network.effective(node, device, "arp_ignore")
    on_wire = any(link.name == device for link in network.holders(node, vip))
    set_on = [
        link.name
        for link in case.state(node).links
        if network.number(node, f"net.ipv4.conf.{link.name.replace('.', '/')}.arp_ignore") in (1, 2)
    ]
    consequence = (
        f"{node} answers ARP requests for {vip} as the director does; neighbours that accept "
        "its reply bypass the director"
    )
    setting = case.sysctl(node, "net.ipv4.conf.all.arp_ignore", 1)
    if on_wire:
        held = next(
            a for link in network.holders(node, vip) if link.name == device
            for a in link.addresses if a.ip == vip
        )  # fmt: skip
        quiet = "" if value in (1, 2) else f" && {setting}"
        return Cause(
            fault="vip-on-lan",
            node=node,
            text="a real server holds the VIP on its LAN interface instead of its loopback device",
            evidence=(f"{node}: {held} on {device}; arp_ignore={value} answers for it", *seen),
            consequence=consequence,
            remedy=f"{case.type(node, 'ip', 'addr', 'del', held, 'dev', device)} && "
            f"{case.type(node, 'ip', 'addr', 'replace', host_route(vip), 'dev', 'lo')}{quiet}",
        )
    if set_on:
        return Cause(
            fault="arp-ignore-on-lo-only",
            node=node,
            text=f"arp_ignore is set on a real server's {' and '.join(set_on)} only",
            evidence=(
                (
                    f"{node}: arp_ignore={value} applies to {device}, which receives the requests: "
                    "the maximum of all and the device"
                ),
                *seen,
            ),
            consequence=consequence,
            remedy=setting,
        )
    return Cause(
        fault="arp-ignore-unset",
        node=node,
        text="arp_ignore is not set on a real server",
        evidence=(f"{node}: arp_ignore={value} applies to {device}", *seen),
        consequence=consequence,
        remedy=setting,
    )


def questions(case: Case) -> Iterator[Found]:
    """A real server sends ARP requests from its RIP: neighbours learn their sender."""
    if case.vip.version != 4:
        return
    for node, device in _exposed(case):
        value = case.network.effective(node.name, device, "arp_announce")
        asked = [
            f
            for f in _arp(case, node.name, Direction.OUT)
            if f.arp is not None and f.arp.is_request
        ]
        as_vip = [f for f in asked if f.arp is not None and f.arp.sender_ip == case.vip]
        if value == 2 and not as_vip:
            continue
        if not as_vip and asked and case.served(node.name):
            yield Remark(
                node.name, f"arp_announce={value}, but its ARP requests came from its own address"
            )
            continue
        yield Cause(
            fault="arp-announce-unset",
            node=node.name,
            text="arp_announce is not set on a real server",
            evidence=(
                f"{node.name}: arp_announce={value} applies to {device}, not 2",
                *shown(as_vip),
            ),
            consequence=(
                f"it sends ARP requests from {case.vip}: neighbours learn its MAC address for the "
                "VIP, and requests bypass the director"
            ),
            remedy=case.sysctl(node.name, "net.ipv4.conf.all.arp_announce", 2),
        )


def learnt(case: Case) -> Iterator[Found]:
    """Neighbour entries for the VIP have the director's MAC address."""
    network = case.lab.network_of(case.vip)
    if network is None:
        return
    macs = case.trace.macs(case.director)
    found = (*answers(case), *questions(case), *advertised(case), *answering_for_others(case))
    guilty = {c.node for c in found if isinstance(c, Cause)}
    for node in case.lab.nodes:
        device = case.network.device(node.name, network.name)
        entry = case.network.neighbour(node.name, device, case.vip)
        if entry is None or entry.mac in macs or node.name == case.director:
            continue
        there = case.network.having_mac(network.name, entry.mac)
        if there in guilty and entry.state != "permanent":
            continue  # named already at the node that caused it
        if not case.requests(node.name, out=True):
            continue  # it sends nothing to the VIP
        yield Cause(
            fault="stale-vip-neighbour",
            node=node.name,
            text=f"{node.name} sends requests for the VIP to the wrong MAC address",
            evidence=(
                f"{node.name}: {case.vip} at {entry.mac} ({entry.state}), "
                + (f"which is {there}" if there else "which no node has"),
                *shown(case.requests(node.name, out=True)),
            ),
            consequence="requests do not reach the director, and IPVS counts nothing",
            remedy=case.type(
                node.name,
                *("ip", "neigh", "del", case.vip, "dev"),
                device,
            ),
        )


def wrongly_learnt(case: Case) -> Iterator[Found]:
    """Before the requests, no node had learnt a MAC address of another node than the address's.

    Entries that are set for good are found where they block a packet's path.
    """
    for node, entry, owners, leads_to in wrong_neighbours(case.evidence, case.network.network_of):
        if entry.state in CONFIGURED and _blocks(case, node, entry):
            continue
        of_vip = any(entry.address in service.vips for service in case.lab.services)
        where = f"which is {leads_to}" if leads_to else "which no node has"
        yield Cause(
            fault="stale-vip-neighbour" if of_vip else "stale-neighbour",
            node=node,
            text=(
                f"{node} has a wrong MAC address for {entry.address} of {owners[0]} in its "
                "neighbour table"
            ),
            evidence=(
                f"{node}: {entry.address} at {entry.mac} ({entry.state}), {where}",
                *([_READ] if not case.by_state else []),
            ),
            consequence=(
                f"what {node} sends to {entry.address} goes to that MAC address until the entry "
                "is replaced (a gratuitous ARP does so at a failover) or expires"
            ),
            remedy=case.type(node, "ip", "neigh", "del", entry.address, "dev", entry.device),
        )


_READ = "read before the requests; flushed while they were sent, and put back afterwards"


def _blocks(case: Case, node: str, entry: NeighbourState) -> bool:
    """Whether another rule names the entry: it is on the path of requests or replies."""
    if any(entry.address == service.endpoint.vip for service in case.lab.services):
        return bool(case.requests(node, out=True))
    servers = {server.rip for server in case.service.real_servers}
    on_way = {*servers, *case.clients_addresses}
    return entry.address in on_way


RULES = (
    Rule(
        find=answers,
        modes=(DR, TUN),
        latent=True,
        harms_others=True,
        rules_out="no real server answers ARP requests for the VIP",
    ),
    Rule(
        find=advertised,
        modes=(DR, TUN),
        latent=True,
        harms_others=True,
        rules_out="no real server answers neighbour solicitations for the VIP",
    ),
    Rule(
        find=questions,
        modes=(DR, TUN),
        latent=True,
        harms_others=True,
        rules_out="no real server sends ARP requests from the VIP",
    ),
    Rule(
        find=wrongly_learnt,
        latent=True,
        rules_out="no node has learnt a wrong MAC address",
    ),
    Rule(
        find=learnt, by_state=False, rules_out="every neighbour entry for the VIP is the director's"
    ),
)
