"""ARP and neighbour entries: who answers for the VIP, and what its neighbours believe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import (
    DIRECTOR_BYPASSED,
    DR,
    EVERY_MODE,
    NAT,
    NO_ANSWER,
    ONE_SERVER_SILENT,
    FaultContext,
    FaultTable,
)
from lvsctl.faults.change import Change, added, removed
from lvsctl.model.addresses import mac_for
from lvsctl.model.lab import Role
from lvsctl.resources.neighbour import Neighbour, ProxyNeighbour
from lvsctl.resources.sysctl import Sysctl

FAULTS = FaultTable()

MAYBE_BYPASSED = (*DIRECTOR_BYPASSED, "nat.both-directions-load-director")
"""Claims that may fail if a real server's MAC address is learnt for the VIP.

The one about NAT where a service has real servers of both methods.
"""


@FAULTS.add(
    "arp-ignore-unset",
    "arp_ignore is not set on a real server",
    modes=(DR,),
    at=(Role.REAL_SERVER,),
    symptom=(
        "the real server answers ARP requests for the VIP as the director does; "
        "neighbours that accept its reply bypass the director"
    ),
    breaks=("dr.only-director-answers-arp",),
    may_break=MAYBE_BYPASSED,
)
def arp_ignore_unset(context: FaultContext) -> Iterator[Change]:
    """A real server answers ARP requests for the VIP: arp_ignore is not set.

    Linux answers for any of its addresses on any interface (ip-sysctl.rst, arp_ignore=0).
    It often goes unnoticed, because requests are still served; but they are not balanced.

    Changes: the setting on `all` is the kernel's default.
    """
    if 4 not in context.versions:
        return
    setting = context.setting("net.ipv4.conf.all.arp_ignore")
    yield Change(setting, replace(setting, value="0"))


@FAULTS.add(
    "arp-ignore-on-lo-only",
    "arp_ignore is set on a real server's loopback only",
    modes=(DR,),
    at=(Role.REAL_SERVER,),
    symptom=(
        "the real server answers ARP requests for the VIP as the director does; "
        "neighbours that accept its reply bypass the director"
    ),
    breaks=("dr.only-director-answers-arp",),
    may_break=MAYBE_BYPASSED,
)
def arp_ignore_on_lo_only(context: FaultContext) -> Iterator[Change]:
    """arp_ignore is set on the loopback device only, where the VIP is.

    The kernel uses the maximum of `all` and the interface that receives the request
    (ip-sysctl.rst). Setting it on `lo` alone, as a well-known tutorial does, has no effect.

    Changes: the setting moves from `all` to `lo`.
    """
    if 4 not in context.versions:
        return
    setting = context.setting("net.ipv4.conf.all.arp_ignore")
    yield Change(setting, replace(setting, value="0"))
    lo = Sysctl(netns=context.netns, name="net.ipv4.conf.lo.arp_ignore", value="0")
    yield Change(lo, replace(lo, value="1"))


@FAULTS.add(
    "arp-announce-unset",
    "arp_announce is not set on a real server",
    modes=(DR,),
    at=(Role.REAL_SERVER,),
    symptom=(
        "the real server sends ARP requests for the client's or the router's address with "
        "the VIP as sender"
    ),
    breaks=("dr.real-servers-announce-rip",),
    may_break=("dr.only-director-answers-arp", *MAYBE_BYPASSED),
)
def arp_announce_unset(context: FaultContext) -> Iterator[Change]:
    """A real server sends its ARP requests from the VIP: arp_announce is not 2.

    Its replies have the VIP as source, and so has the ARP request for the next hop
    (ip-sysctl.rst, arp_announce=0). Neighbours learn the wrong MAC address for the VIP from it.

    Changes: the setting on `all` is the kernel's default.
    """
    if 4 not in context.versions:
        return
    setting = context.setting("net.ipv4.conf.all.arp_announce")
    yield Change(setting, replace(setting, value="0"))


def solicits_from_vip(context: FaultContext) -> tuple[str, ...]:
    """In IPv6 the address of a reply is also that of the solicitation before it.

    If it is on the interface (ndisc_solicit in net/ipv6/ndisc.c): there is no arp_announce. A
    client beside the real server is not asked for: it has asked for the VIP itself, and so told
    its MAC address. A router asks from its link-local address, and is asked for.
    """
    beside = any(context.neighbours(Role.CLIENT, 6))
    routed = any(context.neighbours(Role.ROUTER, 6))
    return ("dr.real-servers-announce-rip",) if routed and not beside else ()


ADVERTISED_TWICE = (
    *MAYBE_BYPASSED,
    *("dr.reply-direct", "dr.one-segment", "all.requests-answered", "all.frames-agree"),
    *("all.large-requests-answered", "all.nothing-sent-again"),
)
"""Claims that may fail if two nodes answer for the VIP.

In IPv6 each advertisement replaces the other one, also while a connection lasts.
"""


@FAULTS.add(
    "vip-on-lan",
    "a real server holds the VIP on its LAN interface instead of its loopback device",
    modes=(DR,),
    at=(Role.REAL_SERVER,),
    symptom=(
        "the real server answers ARP requests for the VIP as the director does; "
        "neighbours that accept its reply bypass the director"
    ),
    breaks=("dr.only-director-answers-arp",),
    breaks_where=solicits_from_vip,
    may_break=ADVERTISED_TWICE,
)
def vip_on_lan(context: FaultContext) -> Iterator[Change]:
    """The VIP is on a real server's LAN interface, where arp_ignore=1 still answers for it.

    arp_ignore=1 answers for addresses of the receiving interface (ip-sysctl.rst). So the VIP
    belongs on a device that receives no ARP requests, such as lo. A neighbour solicitation
    is answered for such addresses only, and always (RFC 4861, section 7.2.3).

    Changes: the VIP moves from the loopback device to the interface.
    """
    for vip in context.vips(device="lo"):
        asked = context.lab.network_of(vip.address.ip)
        own = context.node.networks
        device = asked.name if asked is not None and asked.name in own else own[0]
        yield Change(vip, replace(vip, device=device))


@FAULTS.add(
    "proxy-ndp",
    "a real server answers neighbour solicitations for the VIP as a proxy",
    modes=(DR,),
    at=(Role.REAL_SERVER,),
    cause="proxy-answers",
    symptom=(
        "the real server answers neighbour solicitations for the VIP as the director does; "
        "neighbours that accept its advertisement bypass the director"
    ),
    breaks=("dr.only-director-answers-arp",),
    may_break=ADVERTISED_TWICE,
)
def proxy_ndp(context: FaultContext) -> Iterator[Change]:
    """A real server is a neighbour discovery proxy for the VIP, as a router would be.

    The kernel answers as a proxy on interfaces that forward (ip-sysctl.rst, proxy_ndp; net/ipv6/
    ndisc.c, ndisc_recv_ns).

    Changes: forwarding and proxy_ndp of the interface, and a proxy entry for each VIP.
    """
    for service in context.services((DR,)):
        for vip in service.vips:
            network = context.lab.network_of(vip)
            if vip.version == 4 or network is None or network.name not in context.node.networks:
                continue
            for name in ("forwarding", "proxy_ndp"):
                key = f"net.ipv6.conf.{network.name}.{name}"
                setting = Sysctl(netns=context.netns, name=key, value="0")
                yield Change(setting, replace(setting, value="1"))
            yield added(ProxyNeighbour(netns=context.netns, device=network.name, address=vip))


@FAULTS.add(
    "vip-tentative",
    "duplicate address detection keeps the director's VIP tentative",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="neighbour solicitations for the VIP stay unanswered, and IPVS counts nothing",
    breaks=("dr.only-director-answers-arp", *NO_ANSWER),
    may_break=("dr.reply-direct", "tun.reply-direct", "nat.both-directions-load-director"),
)
def vip_tentative(context: FaultContext) -> Iterator[Change]:
    """The director's VIP was added without nodad, where duplicate address detection is on.

    Until it is over the address is tentative, and is answered for by no one (RFC 4862, section
    5.4). It usually takes a second, at each failover too; here it takes ten minutes.

    Changes: accept_dad and dad_transmits of the interface, and each IPv6 VIP is added again.
    """
    for vip in context.vips():
        if vip.address.version == 6:
            for name, usual, value in (("accept_dad", "0", "1"), ("dad_transmits", "1", "600")):
                key = f"net.ipv6.conf.{vip.device}.{name}"
                setting = Sysctl(netns=context.netns, name=key, value=usual)
                yield Change(setting, replace(setting, value=value))
            yield removed(vip)
            yield added(replace(vip, dad=True))


@FAULTS.add(
    "stale-neighbour",
    "the director sends a real server's requests to a MAC address that does not exist",
    modes=(DR, NAT),
    at=(Role.DIRECTOR,),
    symptom="requests leave the director to a MAC address that does not exist",
    breaks=(
        "dr.request-only-macs-change",
        "dr.one-segment",
        "dr.reply-direct",
        "all.neighbours-right",
        *ONE_SERVER_SILENT,
    ),
)
def stale_neighbour(context: FaultContext) -> Iterator[Change]:
    """The director has a static neighbour entry for a real server whose network card was replaced.

    In direct routing only the MAC address determines where a request goes.

    Changes: an entry for the first real server of each service with an unused MAC address.
    """
    for server in context.first_entries((DR, NAT)):
        rip = server.real_server.rip
        network = context.lab.network_of(rip)
        if network is not None and network.name in context.node.networks:
            gone = mac_for(rip).replace("02:00:", "02:01:", 1)
            yield added(Neighbour(netns=context.netns, device=network.name, address=rip, mac=gone))


@FAULTS.add(
    "stale-vip-neighbour",
    "requests go to a MAC address that held the VIP before a failover",
    modes=EVERY_MODE,
    at=(Role.CLIENT, Role.ROUTER),
    symptom=("requests are sent to a MAC address that does not exist, and IPVS counts nothing"),
    breaks=("dr.only-director-answers-arp", "all.neighbours-right", *NO_ANSWER),
)
def stale_vip_neighbour(context: FaultContext) -> Iterator[Change]:
    """A client, or the router before the director, still sends to a director that failed.

    At a failover the new director must announce the VIP (gratuitous ARP). Otherwise requests
    go to the old MAC address until the neighbour's entry expires.

    Changes: a neighbour entry for each VIP on a network of the node.
    """
    if context.lab.ecmp:
        return  # routes to the VIP lead to the directors' own addresses
    for service in context.services(EVERY_MODE):
        for vip in service.vips:
            network = context.lab.network_of(vip)
            if network is not None and network.name in context.node.networks:
                gone = mac_for(vip).replace("02:00:", "02:01:", 1)
                yield added(
                    Neighbour(netns=context.netns, device=network.name, address=vip, mac=gone)
                )


@FAULTS.add(
    "director-silent",
    "the director does not answer ARP requests for the VIP",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="ARP requests for the VIP stay unanswered",
    breaks=("dr.only-director-answers-arp", *NO_ANSWER),
    may_break=("dr.reply-direct", "tun.reply-direct", "nat.both-directions-load-director"),
)
def director_silent(context: FaultContext) -> Iterator[Change]:
    """The director has the ARP settings of a real server, and more: it answers for nothing.

    Changes: arp_ignore=8 (ip-sysctl.rst: no reply for any local address).
    """
    if 4 in context.versions:
        setting = Sysctl(netns=context.netns, name="net.ipv4.conf.all.arp_ignore", value="0")
        yield Change(setting, replace(setting, value="8"))
