"""TUN (IP tunneling): the director puts the request into a new IP packet to the real server.

    client ──VIP──▶ director ══[DIP→RIP [CIP→VIP]]══▶ routers ══▶ rs1
    client ◀────────────────────VIP───────────────────────────── rs1

The real server decapsulates, finds the VIP on its tunnel device, and answers the
client directly. It may sit in any network that the director can reach; its replies
never cross the director. (LVS HOWTO, "LVS-Tun".)

What goes between the two IP headers is the encapsulation: nothing (IPIP, protocol 4,
RFC 2003), a GRE header (protocol 47, RFC 2784), or UDP and a GUE header, which
firewalls and equal-cost routing take for any other UDP (draft-ietf-intarea-gue-09).
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.model.addresses import host_route
from lvsctl.model.claim import Claim
from lvsctl.model.rule import Violation
from lvsctl.model.service import Encapsulation, ForwardingMethod, RealServer
from lvsctl.modes.base import Placed, loose_reverse_path, no_port_mapping
from lvsctl.modes.dr import arp_suppression
from lvsctl.resources.ops import AddAddress, AddGuePort, AddTunnel, Op

REQUEST = Claim(
    "tun.request-encapsulated",
    "the director puts a request, unchanged but for its TTL, into a new IP packet DIP to RIP",
    broken_by=("wrong-forwarding-method", "encapsulation-mismatch"),
)
ARRIVES = Claim(
    "tun.decapsulated-on-tunnel-device",
    "the real server takes the request out of the tunnel and finds the VIP on its tunnel device",
    broken_by=("tunnel-down", "vip-missing", "encapsulation-mismatch"),
)
REPLY = Claim(
    "tun.reply-direct",
    "replies go from the real server, with the VIP as their source, past the director",
    broken_by=("rp-filter-on-tunnel", "rp-filter-on-router", "no-default-gateway"),
)
ROUTED = Claim(
    "tun.routed",
    "routers carry the tunnel: real servers may sit in other networks than the director",
    broken_by=("tunnel-filtered", "real-server-down"),
)

HEADERS = {Encapsulation.IPIP: 20, Encapsulation.GRE: 24, Encapsulation.GUE: 32}
"""Bytes in front of the request: an IPv4 header of 20 bytes; GRE's 4 without checksum, key
and sequence number; UDP's 8 and GUE's 4 without options. IPVS asks for none of these."""

COST = {
    encapsulation: Claim(
        f"tun.costs-{count}-bytes",
        f"the tunnel costs {count} bytes: a larger DF packet brings back fragmentation-needed",
        broken_by=("icmp-filtered", "pmtu-discovery-off"),
    )
    for encapsulation, count in HEADERS.items()
}
"""Of these a service makes the one about its encapsulation."""

CLAIMS = (REQUEST, ARRIVES, REPLY, ROUTED, *COST.values())
"""In the order in which they are shown; how each is decided stands in ``verify.tun``."""


TUNNEL_INDEX = {Encapsulation.IPIP: 40, Encapsulation.GRE: 41}
"""ifindex of a tunnel device: below the interfaces, which the planner counts from 50."""


class Tunneling:
    """See the module's docstring."""

    method = ForwardingMethod.TUN
    gateway_is_director = False

    def director_needs(self, placed: Placed) -> Iterator[Op]:
        """Nothing beyond the VIP and the IPVS table: IPVS itself encapsulates."""
        yield from ()

    def real_server_needs(self, placed: Placed, server: RealServer) -> Iterator[Op]:
        """A tunnel device that takes what the director sends, with the VIP on it, silently."""
        netns, vip = placed.netns(server), placed.service.vip
        encapsulation = placed.service.encapsulation
        device, kind = encapsulation.device, encapsulation.device_kind
        if vip.version == 4:
            yield from arp_suppression(netns, vip)
        if encapsulation is Encapsulation.GUE:
            yield AddGuePort(
                netns=netns,
                why="take off the UDP and GUE headers: what is left is IP in IP",
            )
        yield AddTunnel(
            netns=netns,
            device=device,
            index=TUNNEL_INDEX[kind],
            encapsulation=kind,
            why="take off the outer header that the director put on",
        )
        yield from loose_reverse_path(
            netns,
            device,
            "requests come out of the tunnel, but the way to the client is not through it",
        )
        yield AddAddress(
            netns=netns,
            device=device,
            address=host_route(vip),
            why="accept the decapsulated requests, still addressed to the VIP",
        )

    def violations(self, placed: Placed) -> Iterator[Violation]:
        """No port mapping, and (for now) no IPv6."""
        yield from no_port_mapping(placed)
        if placed.service.vip.version == 6:
            yield Violation(
                path=("services", placed.index, "vip"),
                message="tunnels for IPv6 (protocol 41) cannot be built yet",
                hint="use an IPv4 VIP, or `forward: dr` or `forward: nat`",
            )
