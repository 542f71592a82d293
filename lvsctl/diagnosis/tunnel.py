"""Rules about tunnels: the device that decapsulates, its reverse path filter, its MTU."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from lvsctl.diagnosis import ttl
from lvsctl.diagnosis.base import TUN, Case, Found, Rule, shown
from lvsctl.diagnosis.links import too_long
from lvsctl.diagnosis.packet_filter import dropped
from lvsctl.model.addresses import host_route
from lvsctl.model.claim import Cause
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.service import Encapsulation, TunnelKind
from lvsctl.model.state import LinkState
from lvsctl.modes.base import is_deprecated


def devices(case: Case, node: str) -> tuple[LinkState, ...]:
    """A node's tunnel devices for the service's encapsulation."""
    kinds = {server.tunnel(case.vip) for server in case.service.real_servers if server.node == node}
    return tuple(link for link in case.state(node).links if link.kind in kinds)


def device_there(case: Case) -> Iterator[Found]:
    """Every real server has a tunnel device, and it is up."""
    for server, node in case.members():
        kind = server.tunnel(case.vip)
        device = server.tunnel_device(case.vip)
        found = devices(case, node.name)
        if any(link.up for link in found):
            continue
        up = case.type(node.name, "ip", "link", "set", device, "up")
        loose = [case.sysctl(node.name, f"net.ipv4.conf.{device}.rp_filter", 0)]
        if case.vip.version == 6:
            loose = []  # IPv6 has no reverse path filter
        vip = case.type(node.name, "ip", "addr", "replace", host_route(case.vip), "dev", device)
        mode: tuple[str, ...] = ("mode", "any") if kind is TunnelKind.IP6TNL else ()
        if server.checked_gre:
            mode = ("local", str(server.rip), "icsum")
        making = case.type(node.name, *("ip", "link", "add", device, "type", kind, *mode))
        if not found:
            steps = [making, *loose, up, vip]
        else:  # with the device an IPv6 address went
            held = any(
                link.addresses for link in found if case.vip in [a.ip for a in link.addresses]
            )
            steps = [up] if held else [up, vip]
        remedy = " && ".join(steps)
        seen = case.requests(node.name)
        yield Cause(
            fault="tunnel-down" if found else "tunnel-missing",
            node=node.name,
            text=(
                "a real server's tunnel device is down"
                if found
                else "a real server has no tunnel device"
            ),
            evidence=(
                f"{node.name}: {found[0].name} is down"
                if found
                else f"{node.name}: no device for {case.service.encapsulation}",
                *shown(seen),
                *shown(_unreachable(case, node.name)),
            ),
            consequence="the requests are not decapsulated",
            remedy=remedy,
        )


def gue_port_there(case: Case) -> Iterator[Found]:
    """Every real server decapsulates GUE on the port that the director sends it to."""
    if case.service.encapsulation is not Encapsulation.GUE:
        return
    for server, node in case.members():
        if server.encapsulation is not Encapsulation.GUE:
            continue
        state, port = case.state(node.name), server.tunnel_port
        open_ports = state.gue_ports if server.rip.version == 4 else state.gue_ports6
        if port in open_ports:
            continue
        others = f", only on {', '.join(map(str, open_ports))}" if open_ports else ""
        yield Cause(
            fault="gue-port-missing",
            node=node.name,
            text=f"a real server does not decapsulate GUE on UDP port {port}",
            evidence=(
                f"{node.name}: no GUE on port {port}{others}",
                *shown(case.requests(node.name)),
                *shown(_unreachable(case, node.name)),
            ),
            consequence="the requests are not decapsulated",
            remedy=case.type(
                node.name,
                *(("ip",) if server.rip.version == 4 else ("ip", "-6")),
                *("fou", "add", "port", port, "gue"),
            ),
        )


def keys_agree(case: Case) -> Iterator[Found]:
    """No tunnel device of a real server expects a GRE key, which IPVS does not send."""
    if case.service.encapsulation is not Encapsulation.GRE:
        return
    for server, node in case.members():
        for link in devices(case, node.name):
            key = link.setting("ikey")
            if not link.up or not key or case.served(node.name):
                continue
            usual = server.tunnel_device(case.vip)
            vip = host_route(case.vip)
            restore = [case.type(node.name, "ip", "link", "del", link.name)]
            if link.name != usual:
                restore += [
                    case.type(node.name, "ip", "link", "set", usual, "up"),
                    case.type(node.name, "ip", "addr", "replace", vip, "dev", usual),
                ]
            else:
                restore.append(case.restore(node.name))
            yield Cause(
                fault="tunnel-key",
                node=node.name,
                text=f"a real server's GRE tunnel {link.name} expects a key; IPVS sends none",
                evidence=(
                    f"{node.name}: {link.name} has the key {key}",
                    *shown(case.requests(node.name)),
                    *shown(_unreachable(case, node.name)),
                ),
                consequence="the requests are not decapsulated",
                remedy=" && ".join(restore),
            )


def endpoints_agree(case: Case) -> Iterator[Found]:
    """A tunnel device of every real server takes packets from the director to its RIP."""
    senders = {
        str(address.ip)
        for director in case.lab.directors
        for interface in director.interfaces
        for address in interface.addresses
    }
    for server, node in case.members():
        found = [link for link in devices(case, node.name) if link.up]
        wrong = [fact for link in found if (fact := _other_ends(link, senders, str(server.rip)))]
        if not found or len(wrong) < len(found) or case.served(node.name):
            continue
        yield Cause(
            fault="tunnel-endpoint",
            node=node.name,
            text="a real server's tunnel device takes no packets from the director",
            evidence=(
                *(f"{node.name}: {fact}" for fact in wrong),
                *shown(case.requests(node.name)),
                *shown(_unreachable(case, node.name)),
            ),
            consequence="the requests are not decapsulated",
            remedy=case.restore(node.name),
        )


def _other_ends(link: LinkState, senders: Collection[str], rip: str) -> str:
    """Which of a device's addresses are not those of the packets; empty if they can be."""
    remote, local = link.setting("remote"), link.setting("local")
    if remote and remote not in senders:
        return f"{link.name} takes packets from {remote} only; the director is not {remote}"
    if local and local != rip:
        return f"{link.name} takes packets to {local} only; they are sent to {rip}"
    return ""


def _unreachable(case: Case, node: str) -> Iterator[Frame]:
    for frame in case.trace.at(node):
        icmp = frame.icmp
        unreachable = icmp is not None and icmp.type == (3 if icmp.version == 4 else 1)
        if unreachable and frame.direction is Direction.OUT:
            yield frame


def tunnel_filter(case: Case) -> Iterator[Found]:
    """Reverse path filtering does not drop decapsulated requests."""
    for _, node in case.members():
        for link in devices(case, node.name):
            if not link.up:
                continue
            for cip in case.clients_addresses[:1]:
                fact = case.network.filtered(node.name, link.name, cip)
                if fact and cip.version == 4:
                    value = case.network.number(node.name, "net.ipv4.conf.all.rp_filter")
                    names = ("all", link.name) if value else (link.name,)
                    settings = [f"net.ipv4.conf.{name}.rp_filter=0" for name in names]
                    yield Cause(
                        fault="rp-filter-on-tunnel",
                        node=node.name,
                        text=("reverse path filtering is on for a real server's tunnel device"),
                        evidence=(fact, *shown(case.requests(node.name))),
                        consequence="requests are decapsulated and then dropped as spoofed",
                        remedy=case.type(node.name, "sysctl", "-w", *settings),
                    )


def outer_source(case: Case) -> Iterator[Found]:
    """The director sends the tunnel from its DIP, not from the VIP."""
    vip, director = case.vip, case.director
    sent = [
        frame
        for frame in case.requests(director, out=True)
        if len(frame.ips) > 1 and frame.outer is not None and frame.outer.src == vip
    ]
    if not sent or not is_deprecated(case.lab, vip):
        return
    device = sent[0].tap.device
    yield Cause(
        fault="vip-is-outer-source",
        node=director,
        text="the director sends the tunnel from the VIP instead of its DIP",
        evidence=(
            f"{director}: {vip} on {device} is not deprecated",
            *shown(sent),
        ),
        consequence=(
            "the real servers hold the VIP too, and a tunnel takes no packets from an address of "
            "its own host: requests are not decapsulated"
        ),
        remedy=case.type(
            director,
            *("ip", "addr", "change", host_route(vip), "dev", device),
            *("nodad", "preferred_lft", 0),
        ),
    )


def _told(case: Case) -> tuple[Frame, ...]:
    """Fragmentation-needed messages about the large request."""
    large = case.trace.large
    return tuple(
        f
        for f in case.evidence.frames
        if large is not None
        and f.icmp is not None
        and f.icmp.needs_fragmentation
        and f.icmp.quoted is not None
        and f.icmp.quoted.flow is not None
        and f.icmp.quoted.flow.src == large.client
    )


def discovery(case: Case) -> Iterator[Found]:
    """The director reports to clients that a packet is too large for the tunnel."""
    key = "net.ipv4.vs.pmtu_disc"
    if case.vip.version == 6 or case.state(case.director).sysctls.get(key, "1") != "0":
        return
    fragments = [
        f
        for f in case.requests(case.director, out=True)
        if f.outer is not None and f.outer.is_fragment
    ]
    yield Cause(
        fault="pmtu-discovery-off",
        node=case.director,
        text="the director's IPVS does no path MTU discovery",
        evidence=(f"{case.director}: {key}=0", *shown(fragments)),
        consequence="full-sized requests leave the director in two fragments",
        remedy=case.sysctl(case.director, key, 1),
    )


def icmp_filtered(case: Case) -> Iterator[Found]:
    """Small requests are answered, a large one hangs: the client does not learn the path MTU."""
    large = case.trace.large
    if large is None or large.exchange.answered or not case.trace.run.answered:
        return
    if too_long(case):
        return  # the client learnt the tunnel's MTU; a switch on the way has a smaller one
    told = _told(case)
    sent = [f for f in told if f.tap.node == case.director and f.direction is Direction.OUT]
    came = [f for f in told if f.direction in (Direction.IN, Direction.UNKNOWN)]
    again = [f for f in large.requests if f.tap.node == case.client and f.payload]
    asked = [f for f in large.requests if f.tap.node == case.director and f.payload]
    if not sent and not asked:
        return  # the large segments did not reach the director: not a matter of ICMP
    last = max(came, key=lambda f: f.time, default=None)
    if last is not None and ttl.expires(case, last):
        yield ttl.cause(case, case.director, last)
        return
    node = last.tap.node if last is not None else case.director
    if any(isinstance(one, Cause) and one.node == node for one in dropped(case)):
        return  # named with the rule of a packet filter that drops it
    too_big = "fragmentation-needed" if case.vip.version == 4 else "packet-too-big"
    dropped_kind = "ICMP" if case.vip.version == 4 else "ICMPv6 packet-too-big"
    where = "does not leave it" if node != case.client else "which still sends full-sized segments"
    fact = f"{too_big} came to {node} {where}" if last else f"no {too_big}"
    yield Cause(
        fault="icmp-filtered",
        node=node,
        text=f"{dropped_kind} does not get from the director to the client",
        evidence=(
            (
                f"a request of at least {sum(len(f.payload) for f in again[:3])} bytes hangs "
                "while small ones are answered"
            ),
            fact,
            *shown(sent),
            *shown([last] if last is not None else ()),
        ),
        consequence="the client never learns that its packets are too large for the tunnel",
        remedy=_unfiltered(case, node, last.tap.device)
        if last is not None
        else case.type(node, "nft", "list", "ruleset"),
    )


def _unfiltered(case: Case, node: str, device: str) -> str:
    """Remove the filters of all the node's devices.

    The device that is known to drop ICMP comes last, so that the exit status is its own.
    """
    others = [name for name in case.evidence.lab.node(node).networks if name != device]
    if not others:
        return case.type(node, "tc", "qdisc", "del", "dev", device, "clsact")
    devices = " ".join([*others, device])
    each = f"for device in {devices}; do tc qdisc del dev $device clsact; done 2>/dev/null"
    return case.type(node, "sh", "-c", each)


RULES = (
    Rule(
        find=outer_source,
        by_state=False,
        modes=(TUN,),
        latent=True,
        rules_out="the director sends the tunnel from its DIP",
    ),
    Rule(find=keys_agree, modes=(TUN,), rules_out="no tunnel device expects a GRE key"),
    Rule(find=device_there, modes=(TUN,), rules_out="every real server's tunnel device is up"),
    Rule(
        find=endpoints_agree,
        modes=(TUN,),
        rules_out="every real server's tunnel device takes packets from the director",
    ),
    Rule(
        find=gue_port_there,
        modes=(TUN,),
        rules_out="every real server decapsulates what the director sends",
    ),
    Rule(
        find=tunnel_filter,
        modes=(TUN,),
        rules_out="no reverse path filter drops decapsulated requests",
    ),
    Rule(
        find=discovery,
        modes=(TUN,),
        latent=True,
        rules_out="the director does path MTU discovery",
    ),
    Rule(
        find=icmp_filtered,
        by_state=False,
        modes=(TUN,),
        rules_out="fragmentation-needed reaches the client",
    ),
)
