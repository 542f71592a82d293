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
from lvsctl.model.lab import Violation
from lvsctl.model.service import Encapsulation, ForwardingMethod, RealServer
from lvsctl.modes.base import Placed, loose_reverse_path, no_port_mapping
from lvsctl.modes.dr import arp_suppression
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.tunnel import Tunnel

HEADERS = {Encapsulation.IPIP: 20, Encapsulation.GRE: 24, Encapsulation.GUE: 32}
"""Bytes before the request: an IPv4 header (20), GRE without checksum, key and sequence number
(4), UDP (8) and GUE without options (4). IPVS uses none of these options."""


TUNNEL_INDEX = {Encapsulation.IPIP: 40, Encapsulation.GRE: 41}
"""ifindex of a tunnel device: below the interfaces, which the planner counts from 50."""


class Tunneling:
    """See the module's docstring."""

    method = ForwardingMethod.TUN
    gateway_is_director = False

    def director_needs(self, placed: Placed) -> Iterator[Resource]:
        """Nothing beyond the VIP and the IPVS table: IPVS itself encapsulates."""
        yield from ()

    def real_server_needs(self, placed: Placed, server: RealServer) -> Iterator[Resource]:
        """A tunnel device that decapsulates the requests, with the VIP on it and ARP suppressed."""
        netns, vips = placed.netns(server), placed.service.vips
        encapsulation = server.encapsulation
        device, kind = encapsulation.device, encapsulation.device_kind
        for vip in vips:
            if vip.version == 4:
                yield from arp_suppression(netns, vip)
        if encapsulation is Encapsulation.GUE:
            yield GuePort(
                netns=netns,
                why="decapsulate UDP and GUE: IP in IP remains",
            )
        yield Tunnel(
            netns=netns,
            device=device,
            index=TUNNEL_INDEX[kind],
            encapsulation=kind,
            why="decapsulate what the director sends",
        )
        yield from loose_reverse_path(
            netns,
            device,
            "requests come out of the tunnel, but the route to the client does not lead through it",
        )
        for vip in vips:
            yield Address(
                netns=netns,
                device=device,
                address=host_route(vip),
                why="accept the decapsulated requests, still addressed to the VIP",
            )

    def violations(self, placed: Placed) -> Iterator[Violation]:
        """No port mapping, and (for now) no IPv6."""
        yield from no_port_mapping(placed, self.method)
        if any(vip.version == 6 for vip in placed.service.vips):
            yield Violation(
                path=("services", placed.index, "vip"),
                message="tunnels for IPv6 (protocol 41) are not supported yet",
                hint="use an IPv4 VIP, or `forward: dr` or `forward: nat`",
            )
