"""The tunnel of TUN: its device, its type, its path and its MTU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.claims.tun import carried
from lvsctl.faults.base import (
    NO_ANSWER,
    ONE_SERVER_SILENT,
    TUN,
    TUNNEL_COSTS,
    FaultContext,
    FaultTable,
)
from lvsctl.faults.change import Change, added, removed
from lvsctl.model.lab import Role
from lvsctl.model.packet import ICMP, ICMPV6
from lvsctl.model.service import GUE_PORT, Encapsulation, ServiceMatch, TunnelChecksum, TunnelKind
from lvsctl.resources.drop_filter import DropFilter
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel

FAULTS = FaultTable()

PACKET_TOO_BIG = 2
"""ICMPv6's type (RFC 4443, section 3.2)."""


@FAULTS.add(
    "tunnel-down",
    "a real server's tunnel device is down",
    modes=(TUN,),
    at=(Role.REAL_SERVER,),
    symptom=(
        "tunnelled requests reach the real server and are not decapsulated; it sends ICMP "
        "port unreachable to the director"
    ),
    breaks=("tun.decapsulated-on-tunnel-device", "tun.reply-direct", *ONE_SERVER_SILENT),
)
def tunnel_down(context: FaultContext) -> Iterator[Change]:
    """A real server's tunnel device is down: requests are not decapsulated.

    Changes: the device is down. Its VIP stays; an IPv6 one goes, as the kernel has it.
    """
    for tunnel in context.planned(Tunnel):
        for vip in context.vips(device=tunnel.device):
            if vip.address.version == 6:
                yield removed(vip)
        yield removed(LinkUp(netns=context.netns, device=tunnel.device))


ORDER = (Encapsulation.GRE, Encapsulation.IPIP, Encapsulation.GUE)
"""The first of these that the real server does not decapsulate is sent instead."""


@FAULTS.add(
    "encapsulation-mismatch",
    "the director's tunnel type is not the real server's",
    modes=(TUN,),
    at=(Role.DIRECTOR,),
    symptom=(
        "tunnelled requests reach the real server and are not decapsulated; it sends ICMP "
        "port unreachable to the director"
    ),
    breaks=(
        "tun.request-encapsulated",
        "tun.decapsulated-on-tunnel-device",
        "tun.reply-direct",
        *ONE_SERVER_SILENT,
    ),
)
def encapsulation_mismatch(context: FaultContext) -> Iterator[Change]:
    """The director encapsulates requests in another type than the real server decapsulates.

    ipvsadm uses IP in IP without --tun-type; the real server may expect GRE or GUE, or the
    reverse.

    Changes: the first TUN real server of each service.
    """
    for server in context.first_entries((TUN,)):
        real = server.real_server
        taken = _taken(context.at(real.node))
        other = next((kind for kind in ORDER if kind not in taken), None)
        if other is not None:
            port = GUE_PORT if other is Encapsulation.GUE else 0
            none = TunnelChecksum.NONE
            wrong = replace(real, encapsulation=other, tunnel_port=port, checksum=none)
            yield Change(server, replace(server, real_server=wrong))


def _taken(context: FaultContext) -> set[Encapsulation]:
    """The encapsulations that a real server decapsulates: of several services, several."""
    kinds = {
        Encapsulation.GRE
        if tunnel.kind in (TunnelKind.GRE, TunnelKind.IP6GRE)
        else Encapsulation.IPIP
        for tunnel in context.planned(Tunnel)
    }
    return kinds | {Encapsulation.GUE for _ in context.planned(GuePort)}


@FAULTS.add(
    "tunnel-port-mismatch",
    "the director sends GUE to another UDP port than the real server takes it at",
    modes=(TUN,),
    at=(Role.DIRECTOR,),
    cause="encapsulation-mismatch",
    symptom=(
        "tunnelled requests reach the real server and are not decapsulated; it sends ICMP "
        "port unreachable to the director"
    ),
    breaks=(
        "tun.request-encapsulated",
        "tun.decapsulated-on-tunnel-device",
        "tun.reply-direct",
        *ONE_SERVER_SILENT,
    ),
)
def tunnel_port_mismatch(context: FaultContext) -> Iterator[Change]:
    """The director's option --tun-port is not the port of the real server's ip-fou(8).

    Changes: the next port, for the first TUN real server of each service.
    """
    for server in context.first_entries((TUN,)):
        real = server.real_server
        if real.tunnel_port:
            wrong = replace(real, tunnel_port=real.tunnel_port + 1)
            yield Change(server, replace(server, real_server=wrong))


def _first_with_header(context: FaultContext) -> Iterator[IpvsRealServer]:
    """The first real server of each service whose tunnel has a header of its own: GRE or GUE."""
    found: dict[ServiceMatch, IpvsRealServer] = {}
    for op in context.planned(IpvsRealServer):
        real = op.real_server
        if real.forward is TUN and not real.local and real.encapsulation is not Encapsulation.IPIP:
            found.setdefault(op.service, op)
    yield from found.values()


def _checked_by_gre(context: FaultContext) -> tuple[str, ...]:
    """A GRE device takes packets with a checksum, or those without; GUE's port takes both."""
    first = (op.real_server for op in _first_with_header(context))
    if not any(real.encapsulation is Encapsulation.GRE for real in first):
        return ()
    return ("tun.decapsulated-on-tunnel-device", "tun.reply-direct", *ONE_SERVER_SILENT)


@FAULTS.add(
    "tunnel-checksum-mismatch",
    "the director's tunnel has a checksum and should have none, or the reverse",
    modes=(TUN,),
    at=(Role.DIRECTOR,),
    cause="encapsulation-mismatch",
    symptom=(
        "the GRE or UDP header of tunnelled requests carries a checksum, or none; a real server "
        "drops such GRE packets"
    ),
    breaks=("tun.checksum",),
    breaks_where=_checked_by_gre,
)
def tunnel_checksum_mismatch(context: FaultContext) -> Iterator[Change]:
    """The director's option --tun-csum does not match the real server's tunnel device.

    A GRE device without the option csum drops packets that have a checksum, and the reverse
    (ip_tunnel_rcv in net/ipv4/ip_tunnel.c). GUE is taken either way.

    Changes: the option, for the first such real server of each service.
    """
    for server in _first_with_header(context):
        real = server.real_server
        none, full = TunnelChecksum.NONE, TunnelChecksum.FULL
        wrong = replace(real, checksum=full if real.checksum is none else none)
        yield Change(server, replace(server, real_server=wrong))


@FAULTS.add(
    "rp-filter-on-tunnel",
    "reverse path filtering is on for a real server's tunnel device",
    modes=(TUN,),
    at=(Role.REAL_SERVER,),
    symptom="requests are decapsulated and no reply leaves the real server",
    breaks=("tun.reply-direct", *ONE_SERVER_SILENT),
)
def rp_filter_on_tunnel(context: FaultContext) -> Iterator[Change]:
    """Reverse path filtering is on for a real server's tunnel device.

    The route to the client does not lead through the tunnel, so decapsulated requests look
    spoofed (ip-sysctl.rst, rp_filter=1; the maximum of `all` and the device is used).

    Changes: the setting of each tunnel device.
    """
    for tunnel in context.planned(Tunnel):
        setting = context.setting(f"net.ipv4.conf.{tunnel.device}.rp_filter")
        yield Change(setting, replace(setting, value="1"))


@FAULTS.add(
    "tunnel-filtered",
    "a router between director and real servers drops the tunnel",
    modes=(TUN,),
    at=(Role.ROUTER,),
    symptom="tunnelled requests leave the director and reach no real server",
    breaks=("tun.routed", "tun.reply-direct", *NO_ANSWER),
)
def tunnel_filtered(context: FaultContext) -> Iterator[Change]:
    """A router on the path passes TCP on but drops the tunnel.

    The tunnel is IP protocol 4 or 41 (IP in IP) or 47 (GRE), which few rule sets allow, or UDP
    (GUE).

    Changes: the router drops the protocol on every interface.
    """
    for service in context.services([TUN]):
        for server in service.by(TUN):
            if not context.joins(context.lab.directors, (context.lab.node(server.node),)):
                continue
            protocol, _ = carried(server.encapsulation, service.endpoint.vip.version)
            for device in context.node.networks:
                yield added(
                    DropFilter(
                        netns=context.netns,
                        device=device,
                        protocol=protocol,
                        version=server.rip.version,
                    )
                )


@FAULTS.add(
    "icmp-filtered",
    "a router between director and client drops ICMP",
    modes=(TUN,),
    at=(Role.ROUTER, Role.CLIENT),
    symptom=(
        "the director's fragmentation-needed (IPv6: packet too big) does not reach the client, "
        "which sends the same full-sized segment again and again"
    ),
    breaks=(*TUNNEL_COSTS, "all.large-requests-answered"),
)
def icmp_filtered(context: FaultContext) -> Iterator[Change]:
    """A router drops ICMP, so senders do not learn that a packet is too large.

    Small requests work; a large one hangs until the connection times out.

    Changes: a router, or the client itself, drops ICMP on every interface. Of ICMPv6 it drops
    packet too big only: neighbour discovery is ICMPv6 too (RFC 4890).
    """
    if not (context.large_requests and context.tunnel_is_tight):
        return
    clients = context.lab.having(Role.CLIENT)
    if context.node not in clients and not context.joins(clients, context.lab.directors):
        return
    for version in context.versions:
        protocol, kind = (ICMP, None) if version == 4 else (ICMPV6, PACKET_TOO_BIG)
        for device in context.node.networks:
            yield added(
                DropFilter(
                    netns=context.netns,
                    device=device,
                    protocol=protocol,
                    version=version,
                    icmp_type=kind,
                )
            )


@FAULTS.add(
    "pmtu-discovery-off",
    "the director's IPVS does no path MTU discovery",
    modes=(TUN,),
    at=(Role.DIRECTOR,),
    symptom="no fragmentation-needed: full-sized requests leave the director in two fragments",
    breaks=TUNNEL_COSTS,
)
def pmtu_discovery_off(context: FaultContext) -> Iterator[Change]:
    """The director does not report to clients that a packet is too large for the tunnel.

    Requests still work, but fragmented: with pmtu_disc=0 it clears DF on the outer header
    (Documentation/networking/ipvs-sysctl.rst). IPv6 packets are never fragmented on their way,
    whatever it says.

    Changes: net.ipv4.vs.pmtu_disc, which is on by default.
    """
    if context.lab.ecmp:
        return  # what another director reports of the path to the VIP, the client believes of all
    if 4 in context.versions and context.large_requests and context.tunnel_is_tight:
        setting = Sysctl(netns=context.netns, name="net.ipv4.vs.pmtu_disc", value="1")
        yield Change(setting, replace(setting, value="0"))


@FAULTS.add(
    "vip-is-outer-source",
    "the director sends the tunnel from the VIP instead of its DIP",
    modes=(TUN,),
    at=(Role.DIRECTOR,),
    symptom=(
        "tunnelled requests leave the director with the VIP as their outer source, reach the real "
        "servers and are not decapsulated"
    ),
    breaks=(
        "tun.request-encapsulated",
        "tun.decapsulated-on-tunnel-device",
        "tun.reply-direct",
        *NO_ANSWER,
    ),
)
def vip_is_outer_source(context: FaultContext) -> Iterator[Change]:
    """The director's IPv6 VIP is an ordinary address, and the kernel chooses it as the source.

    Of two addresses that are equally good the kernel takes the one that was added last (RFC 6724;
    ipv6_dev_get_saddr in net/ipv6/addrconf.c), unless it is deprecated. A real server's tunnel
    takes no packets from an address that the real server itself has (ip6_tnl_rcv_ctl).

    Changes: the VIP's preferred lifetime.
    """
    for vip in context.vips():
        if vip.deprecated:
            yield removed(vip)
            yield added(replace(vip, deprecated=False))


@FAULTS.add(
    "gue-port-missing",
    "a real server does not decapsulate GUE",
    modes=(TUN,),
    at=(Role.REAL_SERVER,),
    symptom=(
        "tunnelled requests reach the real server and are not decapsulated; it sends ICMP "
        "port unreachable to the director"
    ),
    breaks=("tun.decapsulated-on-tunnel-device", "tun.reply-direct", *ONE_SERVER_SILENT),
)
def gue_port_missing(context: FaultContext) -> Iterator[Change]:
    """A real server has its tunnel device, but no port on which the kernel takes GUE.

    Changes: the port is removed (ip-fou(8)).
    """
    yield from map(removed, context.planned(GuePort))
