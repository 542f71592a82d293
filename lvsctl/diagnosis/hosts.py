"""Rules about single nodes: their interfaces and the addresses that they must hold."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.claims.base import join_names
from lvsctl.diagnosis.base import DR, NAT, TUN, Case, Found, Rule, shown
from lvsctl.diagnosis.tunnel import devices
from lvsctl.model.addresses import IPAddress, IPInterface, host_route
from lvsctl.model.claim import Cause
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Node, Role
from lvsctl.model.state import LinkState
from lvsctl.modes.base import is_deprecated
from lvsctl.plan.routing import routes_of


def interfaces(case: Case) -> Iterator[Found]:
    """Every interface of the topology is up and has a carrier."""
    members = {server.node for server in case.service.real_servers}
    for node in case.lab.nodes:
        if node.role is Role.REAL_SERVER and node.name not in members:
            continue
        server = node.role is Role.REAL_SERVER
        for network in node.networks:
            link = case.network.interface(node.name, network)
            if link is not None and ((link.up and link.carrier) or _is_renamed(case, node, link)):
                continue
            if link is None and case.by_state:
                continue  # named as a missing address: an interface is known by its network
            device = case.network.device(node.name, network)
            fact, remedy = _why_down(case, node, network, link)
            if next_hops := _next_hops(case, node, network):
                yield _director_down(case, node, (fact, *next_hops), remedy)
                continue
            yield Cause(
                fault="real-server-down" if server else "interface-down",
                node=node.name,
                text=(
                    "a real server is disconnected from the network"
                    if server
                    else f"the {node.role}'s interface {device} is down"
                ),
                evidence=(fact, *shown(_unanswered(case, node, network))),
                consequence=(
                    f"the director still sends requests to {node.name}, which are not answered"
                    if server
                    else f"{node.name} receives and forwards nothing on {device}"
                ),
                remedy=remedy,
            )


def _next_hops(case: Case, node: Node, network: str) -> tuple[str, ...]:
    """The routes of which a director is a next hop beside others (``ha: ecmp``)."""
    own = {address.ip for address in node.addresses_on(network)}
    return tuple(
        f"{other.name}: {route.to} nexthop via {route.via}, which is {node.name}"
        for other in case.lab.nodes
        for route in case.state(other.name).routes
        if node.ecmp and route.hops > 1 and route.via in own
    )


def _director_down(case: Case, node: Node, facts: tuple[str, ...], remedy: str) -> Cause:
    """A director that is gone, and still a next hop: no one tells the routers."""
    unanswered = (frame for name in node.networks for frame in _unanswered(case, node, name))
    return Cause(
        fault="director-down",
        node=node.name,
        text="one of several active directors is disconnected, and routers go on sending to it",
        evidence=(*facts, *shown(unanswered)),
        consequence=(
            "the flows of its next hop are lost: about one in "
            f"{len(case.lab.directors)}, until the route is changed or the director is back"
        ),
        remedy=remedy,
    )


def _is_renamed(case: Case, node: Node, link: LinkState) -> bool:
    """Whether a lab's interface has another name than its network's."""
    return not case.network.devices and link.name not in node.networks


def lo_up(case: Case) -> Iterator[Found]:
    """The loopback device is up where it holds the VIP."""
    for node in case.lab.nodes:
        lo = case.state(node.name).link("lo")
        if lo is not None and not lo.up and any(a.ip == case.vip for a in lo.addresses):
            yield Cause(
                fault="interface-down",
                node=node.name,
                text="the loopback device, which holds the VIP, is down",
                evidence=(f"{node.name}: lo is down, with {case.vip} on it",),
                consequence=(
                    "where the kernel does not keep the VIP's route in table local, the VIP is not "
                    "local, and requests are dropped"
                ),
                remedy=case.type(node.name, "ip", "link", "set", "lo", "up"),
            )


def renamed(case: Case) -> Iterator[Found]:
    """Every interface has the name of its network."""
    for node in case.lab.nodes:
        state = case.state(node.name)
        for device in node.networks:
            other = case.network.interface(node.name, device)
            if state.link(device) is None and other is not None:
                yield Cause(
                    fault="interface-renamed",
                    node=node.name,
                    text=f"{node.name}'s interface {device} was renamed to {other.name}",
                    evidence=(f"{node.name}: {other.name} has {device}'s MAC address {other.mac}",),
                    consequence=(
                        f"settings, scripts and captures that name {device} do not find it, even "
                        "where requests are still answered"
                    ),
                    remedy=case.restore(node.name),
                )


def _why_down(case: Case, node: Node, network: str, link: LinkState | None) -> tuple[str, str]:
    if link is None:
        return f"{node.name}: {network} does not exist", case.restore(node.name)
    device = link.name
    gone = [a for a in node.addresses_on(network) if _went_with(case, node, network, a.ip)]
    fact = f"{node.name}: {device} is down"
    if gone:
        fact += ", and its IPv6 addresses went with it"
        if not case.by_state:
            return fact, case.restore(node.name)
    if not link.up:
        # The routes through it were removed with it and do not come back by themselves.
        lost = [
            case.type(node.name, "ip", "route", "replace", route.to or "default", "via", route.via)
            for route in routes_of(case.lab, node)
            if any(route.via in a.network for a in node.addresses_on(network))
        ]
        up = case.type(node.name, "ip", "link", "set", device, "up")
        # Before the routes, whose next hops they reach.
        again = [_add_address(case, node, network, address) for address in gone]
        return fact, " && ".join([up, *again, *_add_vip_again(case, node, network), *lost])
    fact = f"{node.name}: {device} is up but has no carrier"
    if case.by_state:
        return fact, case.type(node.name, "ip", "-s", "link", "show", "dev", device)
    # Its peer is the bridge port, named after the node.
    return fact, f"ip -n {case.lab.netns(network)} link set {node.name} up"


def _went_with(case: Case, node: Node, network: str, address: IPAddress) -> bool:
    """Whether the kernel removed an IPv6 address because the interface went down.

    It does so unless keep_addr_on_down is set (kernel: ip-sysctl.rst).
    """
    link = case.network.interface(node.name, network)
    gone = link is not None and not link.up and not case.network.holders(node.name, address)
    return gone and address.version == 6


def _add_vip_again(case: Case, node: Node, network: str) -> Iterator[str]:
    """The command that adds an IPv6 VIP that went with the director's interface."""
    here = node.name == case.director and case.lab.network_of(case.vip) == case.lab.network(network)
    if here and _went_with(case, node, network, case.vip):
        yield _add_vip(case, case.network.device(node.name, network))


def _unanswered(case: Case, node: Node, network: str) -> Iterator[Frame]:
    """ARP requests and neighbour solicitations for the node's address."""
    own = {a.ip for a in node.addresses_on(network)}
    for frame in case.evidence.frames:
        if frame.asks_for in own:
            yield frame


def own_addresses(case: Case) -> Iterator[Found]:
    """Every node holds its own addresses, and no other node does."""
    for node in case.lab.nodes:
        for interface in node.interfaces:
            for address in interface.addresses:
                switched_off = _ipv6_off(case, node, interface.network, address)
                if switched_off is not None:
                    yield switched_off
                elif _went_with(case, node, interface.network, address.ip):
                    pass  # the interface is the cause
                elif not case.network.holders(node.name, address.ip):
                    yield Cause(
                        fault="address-missing",
                        node=node.name,
                        text=f"{node.name} does not hold its own address {address.ip}",
                        evidence=(f"{node.name}: {address.ip} is on no device",),
                        consequence="no node can reach it at that address",
                        remedy=_restored_address(case, node, interface.network, address),
                    )
                else:
                    yield from _misconfigured(case, node, interface.network, address)
                yield from _doubles(case, node, interface.network, address.ip)


def _restored_address(case: Case, node: Node, network: str, address: IPInterface) -> str:
    """The command that adds an address, with the routes that went with it if there are any."""
    if any(route.via in address.network for route in routes_of(case.lab, node)):
        return case.restore(node.name)
    return _add_address(case, node, network, address)


def _add_address(case: Case, node: Node, network: str, address: IPInterface) -> str:
    """The command that adds an address to the node's interface."""
    at_once = ("nodad",) if address.version == 6 else ()
    device = case.network.device(node.name, network)
    return case.type(node.name, "ip", "addr", "add", address, "dev", device, *at_once)


def _ipv6_off(case: Case, node: Node, network: str, address: IPInterface) -> Cause | None:
    """IPv6 that is switched off at an interface, or at the whole node."""
    if address.version != 6:
        return None
    off = case.network.ipv6_off(node.name, case.network.device(node.name, network))
    if off is None:
        return None
    on = case.sysctl(node.name, off.name, 0)
    return Cause(
        fault="ipv6-off",
        node=node.name,
        text=f"IPv6 is switched off at {node.name}",
        evidence=(f"{node.name}: {off.name}={off.value}",),
        consequence=f"its IPv6 addresses are gone, {address.ip} among them",
        # Which adds the addresses again.
        remedy=f"{on} && {case.restore(node.name)}" if case.by_state else case.restore(node.name),
    )


def _misconfigured(case: Case, node: Node, network: str, address: IPInterface) -> Iterator[Cause]:
    """An address with another prefix length: other neighbours are on the link, or none."""
    link = case.network.interface(node.name, network)
    device = case.network.device(node.name, network)
    held = [a for a in link.addresses if a.ip == address.ip] if link is not None else []
    if held and address not in held:
        yield Cause(
            fault="wrong-prefix-length",
            node=node.name,
            text=f"{node.name} has the wrong netmask: {held[0]} in place of {address}",
            evidence=(f"{node.name}: {held[0]} on {device}",),
            consequence=f"its route to {address.network} on {device} is missing or another one",
            remedy=_exchanged(case, node.name, device, held[0], address),
        )


def _exchanged(case: Case, node: str, device: str, wrong: IPInterface, right: IPInterface) -> str:
    """The command that gives a node the right address for a wrong one."""
    if not case.by_state:
        return case.restore(node)  # which adds the routes again that went with the address
    # In this order the address stays, and with it the routes that do not need the wrong prefix.
    add = case.type(node, "ip", "addr", "add", right, "dev", device)
    return f"{add} && {case.type(node, 'ip', 'addr', 'del', wrong, 'dev', device)}"


def _doubles(case: Case, node: Node, network: str, address: IPAddress) -> Iterator[Cause]:
    holding = case.network.holding(address)
    for other in case.lab.nodes:
        if other.name not in holding or other.name == node.name:
            continue
        holders = case.network.holders(other.name, address)
        if other.name not in case.network.connected(network):
            continue
        yield Cause(
            fault="duplicate-address",
            node=other.name,
            text=f"{other.name} holds {address}, which is {node.name}'s address",
            evidence=(
                f"{other.name}: {address} on {holders[0].name}",
                *shown(_about(case, other.name, address)),
            ),
            consequence=(
                f"packets to {node.name} go to the node whose ARP reply is accepted first"
                if case.network.answers(other.name, network, address)
                else f"{other.name} takes {address} for its own: it drops what comes from there, "
                "and what it sends there does not leave it"
            ),
            remedy=_without(case, other.name, address, holders[0]),
        )


def _about(case: Case, node: str, address: IPAddress) -> Iterator[Frame]:
    """Answers of a node for an address, and packets from that address that it received."""
    for frame in case.trace.at(node):
        if frame.answers_for == address:
            if frame.direction is Direction.OUT:
                yield frame
        elif frame.direction is Direction.IN and frame.ips and frame.ips[-1].src == address:
            yield frame


def _without(case: Case, node: str, address: IPAddress, link: LinkState) -> str:
    held = next(a for a in link.addresses if a.ip == address)
    return case.type(node, "ip", "addr", "del", held, "dev", link.name)


def vip_on_director(case: Case) -> Iterator[Found]:
    """The director holds the VIP and answers for it; otherwise requests never reach IPVS."""
    director, vip = case.director, case.vip
    network = case.lab.network_of(vip)
    if network is not None and _went_with(case, case.lab.node(director), network.name, vip):
        return  # the interface is the cause
    if not case.network.holders(director, vip):
        yield Cause(
            fault="vip-missing-on-director",
            node=director,
            text="the director does not hold the VIP",
            evidence=(f"{director}: {vip} is on no device", *shown(_questions(case))),
            consequence="clients' requests never reach IPVS",
            remedy=_add_vip(case, case.network.device(director, network.name) if network else "lo"),
        )
    elif tentative := _tentative(case):
        yield tentative
    elif network is not None and not case.network.answers(director, network.name, vip):
        device = case.network.device(director, network.name)
        value = case.network.effective(director, device, "arp_ignore")
        if value:
            yield Cause(
                fault="director-silent",
                node=director,
                text="the director does not answer ARP requests for the VIP",
                evidence=(
                    f"{director}: arp_ignore={value} applies to {device}",
                    *shown(_questions(case)),
                ),
                consequence="clients and routers cannot resolve the VIP",
                remedy=case.sysctl(director, "net.ipv4.conf.all.arp_ignore", 0)
                + f" net.ipv4.conf.{device}.arp_ignore=0",
            )


def _add_vip(case: Case, device: str) -> str:
    """The command that adds the VIP to the director as the topology has it."""
    words: list[object] = ["ip", "addr", "add", host_route(case.vip), "dev", device]
    if case.vip.version == 6:
        words.append("nodad")
    if is_deprecated(case.lab, case.vip):
        words += ["preferred_lft", 0]
    return case.type(case.director, *words)


def _tentative(case: Case) -> Cause | None:
    """An IPv6 VIP that duplicate address detection keeps from being used."""
    director, vip = case.director, case.vip
    for link in case.network.holders(director, vip):
        flags = next((a.flags for a in link.unusual_addresses if a.address.ip == vip), ())
        failed = "dadfailed" in flags
        if not (failed or "tentative" in flags):
            continue
        key = f"net.ipv6.conf.{link.name}.accept_dad"
        keys = [key, f"net.ipv6.conf.{link.name}.dad_transmits"]
        changed = [one for one in (case.network.changed(director, k) for k in keys) if one]
        found = [f"{director}: {one.name}={one.value}" for one in changed]
        off = [case.sysctl(director, one.name, one.usual) for one in changed]
        others = [
            node.name
            for node in case.lab.nodes
            if node.name != director and case.network.answers(node.name, link.name, vip)
        ]
        state = "dadfailed" if failed else "tentative"
        taken = f": {join_names(others)} answers for it too" if others else ""
        return Cause(
            fault="vip-tentative",
            node=director,
            text=(
                f"the director's VIP failed duplicate address detection{taken}"
                if failed
                else "duplicate address detection keeps the director's VIP tentative"
            ),
            evidence=(
                f"{director}: {vip} on {link.name} is {state}",
                *found,
                *shown(_questions(case)),
            ),
            consequence=(
                "an address is not used and not answered for before the detection has found no "
                "other node that has it (RFC 4862)"
            ),
            remedy=" && ".join(
                [*off, _without(case, director, vip, link), _add_vip(case, link.name)]
            ),
        )
    return None


def _questions(case: Case) -> Iterator[Frame]:
    """ARP requests and neighbour solicitations for the VIP."""
    for frame in case.evidence.frames:
        if frame.asks_for == case.vip:
            yield frame


def vip_elsewhere(case: Case) -> Iterator[Found]:
    """Only the director, and the real servers that need it, hold the VIP."""
    network = case.lab.network_of(case.vip)
    servers = case.service.real_servers
    members = {server.node for server in servers if server.forward is not NAT}
    for node in case.lab.nodes:
        holders = [link for link in case.network.holders(node.name, case.vip) if link.up]
        if not holders or node.name in {d.name for d in case.lab.directors}:
            continue
        if node.name in members:
            continue
        beside = network is not None and case.network.answers(node.name, network.name, case.vip)
        on_way = node.role in (Role.CLIENT, Role.ROUTER)
        if on_way or (beside and network is not None and network.name in node.networks):
            yield Cause(
                fault="vip-elsewhere",
                node=node.name,
                text=f"the {node.role} {node.name} holds the VIP",
                evidence=(f"{node.name}: {case.vip} on {holders[0].name}",),
                consequence="requests that reach it or start there never reach the director",
                remedy=_without(case, node.name, case.vip, holders[0]),
            )


def vip_on_real_servers(case: Case) -> Iterator[Found]:
    """Every real server holds the VIP: requests arrive still addressed to it."""
    vip = case.vip
    for server, node in case.members():
        if server.forward is NAT:
            continue
        device = "lo" if server.forward is DR else server.tunnel_device(vip)
        # With its device, and an IPv6 one with a device that is set down: the remedy restores both.
        if server.forward is TUN and not any(
            link.up or vip.version == 4 for link in devices(case, node.name)
        ):
            continue
        if not case.network.holders(node.name, vip):
            yield Cause(
                fault="vip-missing",
                node=server.node,
                text="a real server does not hold the VIP",
                evidence=(
                    f"{node.name}: {vip} is on no device",
                    *shown(case.requests(node.name)),
                ),
                consequence="the VIP is not local to it, so it drops the requests",
                remedy=case.type(node.name, *("ip", "addr", "add", host_route(vip), "dev", device)),
            )


def vip_as_subnet(case: Case) -> Iterator[Found]:
    """The VIP is a single address: on a loopback device its whole prefix is local."""
    for _, node in case.members():
        lo = case.state(node.name).link("lo")
        for held in lo.addresses if lo is not None else ():
            if held.ip != case.vip or held.network.prefixlen == held.max_prefixlen:
                continue
            neighbours = [
                a.ip
                for other in case.lab.nodes
                for i in other.interfaces
                for a in i.addresses
                if other != node and a.ip in held.network
            ]
            if not neighbours:
                continue
            yield Cause(
                fault="vip-as-subnet",
                node=node.name,
                text="a real server holds the VIP as a whole subnet instead of one address",
                evidence=(
                    f"{node.name}: {held} on lo, so {neighbours[0]} is local to it",
                    *shown(case.requests(node.name)),
                ),
                consequence="packets to that subnet never leave it",
                remedy=f"{case.type(node.name, 'ip', 'addr', 'replace', host_route(case.vip))}"
                f" dev lo; {case.type(node.name, 'ip', 'addr', 'del', held, 'dev', 'lo')}",
            )


RULES = (
    Rule(
        find=renamed,
        by_state=False,
        harms_others=True,
        rules_out="every interface has the name of its network",
    ),
    Rule(find=interfaces, rules_out="every interface is up"),
    Rule(
        find=lo_up, harms_others=True, rules_out="the loopback device is up where it holds the VIP"
    ),
    Rule(
        find=own_addresses,
        harms_others=True,
        rules_out="every node holds its own addresses, and no other node does",
    ),
    Rule(find=vip_on_director, rules_out="the director holds the VIP and answers for it"),
    Rule(find=vip_elsewhere, harms_others=True, rules_out="no other node holds the VIP"),
    Rule(
        find=vip_on_real_servers,
        modes=(DR, TUN),
        rules_out="every real server holds the VIP",
    ),
    Rule(
        find=vip_as_subnet,
        modes=(DR, TUN),
        rules_out="the VIP is a single address on every real server",
    ),
)
