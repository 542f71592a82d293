"""TUN (IP tunneling): the director puts the request into a new IP packet to the real server.

    client ──VIP──▶ director ══[DIP→RIP [CIP→VIP]]══▶ routers ══▶ rs1
    client ◀────────────────────VIP───────────────────────────── rs1

The real server decapsulates, finds the VIP on its tunnel device, and answers the
client directly. It may sit in any network that the director can reach; its replies
never cross the director. (LVS HOWTO, "LVS-Tun".)

Either header is IPv4 or IPv6, whatever the other one is: a real server's RIP may be of another
IP version than the VIP, in this forwarding method only (ip_vs_new_dest in ip_vs_ctl.c).

What goes between the two IP headers is the encapsulation: nothing (IPIP, protocol 4 or 41 by the
inner version, RFC 2003, RFC 2473), a GRE header (protocol 47, RFC 2784), or UDP and a GUE header,
which firewalls and equal-cost routing take for any other UDP (draft-ietf-intarea-gue-09).
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.model.addresses import family_of, host_route
from lvsctl.model.lab import Violation
from lvsctl.model.service import Encapsulation, ForwardingMethod, RealServer, TunnelKind
from lvsctl.modes.base import Placed, loose_reverse_path, no_port_mapping
from lvsctl.modes.dr import arp_suppression
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.gue_port import GuePort
from lvsctl.resources.tunnel import Tunnel

_BETWEEN = {Encapsulation.IPIP: 0, Encapsulation.GRE: 4, Encapsulation.GUE: 12}
"""Bytes between the two IP headers: GRE without checksum, key and sequence number (4), UDP (8)
and GUE without options (4)."""

GRE_CHECKSUM = 4
"""Bytes of GRE's checksum and reserved field (RFC 2784, section 2.1). UDP's has its place."""


def cost(server: RealServer) -> int:
    """Bytes before the request: an IPv4 (20) or IPv6 (40) header, and what follows it.

    GUE's remote checksum costs nothing: IPVS adds its option only to packets whose checksum the
    director itself has to fill in (CHECKSUM_PARTIAL; ipvs_gue_encap in ip_vs_xmit.c), and what it
    forwards has come with one.
    """
    between = _BETWEEN[server.encapsulation] + GRE_CHECKSUM * server.checked_gre
    return family_of(server.rip).header_bytes + between


COSTS = tuple(
    sorted(ip + between for ip in (20, 40) for between in (*_BETWEEN.values(), 4 + GRE_CHECKSUM))
)
"""Each that is possible."""

TUNNEL_INDEX = {
    TunnelKind.IPIP: 40,
    TunnelKind.GRE: 41,
    TunnelKind.SIT: 42,
    TunnelKind.IP6TNL: 43,
    TunnelKind.IP6GRE: 44,
}
"""ifindex of a tunnel device: below the interfaces, which the planner counts from 50."""

_CHECKING_INDEX = -10
"""Added for a device that takes GRE with a checksum."""


def _other_checksum(placed: Placed, server: RealServer) -> str | None:
    """The first service that sends a node GRE with a checksum, or without, unlike ``server``."""
    for service in placed.lab.services:
        for other in service.by(ForwardingMethod.TUN):
            same = (other.node, other.rip.version) == (server.node, server.rip.version)
            both = other.encapsulation is server.encapsulation is Encapsulation.GRE
            if same and both and other.checked_gre != server.checked_gre:
                return service.name
    return None


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
        for vip in vips:
            if vip.version == 4:
                yield from arp_suppression(netns, vip)
        if server.encapsulation is Encapsulation.GUE:
            yield GuePort(
                netns=netns,
                port=server.tunnel_port,
                version=server.rip.version,
                why="decapsulate UDP and GUE: IP in IP remains",
            )
        for vip in vips:
            kind, device = server.tunnel(vip), server.tunnel_device(vip)
            yield Tunnel(
                netns=netns,
                device=device,
                index=TUNNEL_INDEX[kind] + _CHECKING_INDEX * server.checked_gre,
                kind=kind,
                checked_at=server.rip if server.checked_gre else None,
                why="decapsulate what the director sends",
            )
            if vip.version == 4:  # IPv6 has no reverse path filter
                yield from loose_reverse_path(
                    netns,
                    device,
                    "requests come out of the tunnel, but the route to the client does not lead "
                    "through it",
                )
            yield Address(
                netns=netns,
                device=device,
                address=host_route(vip),
                why="accept the decapsulated requests, still addressed to the VIP",
            )

    def violations(self, placed: Placed) -> Iterator[Violation]:
        """No port mapping; a DIP of the RIP's IP version; GRE with a checksum or without."""
        yield from no_port_mapping(placed, self.method)
        versions = {
            address.version for one in placed.director.interfaces for address in one.addresses
        }
        for position, server in enumerate(placed.service.real_servers):
            if server.forward is not self.method:
                continue
            path = ("services", placed.index, "real_servers", position)
            if server.rip.version not in versions:
                family = family_of(server.rip).name
                yield Violation(
                    path=path,
                    message=(
                        f"{placed.director.name} has no {family} address, the source of the "
                        f"tunnel to {server.node} at {server.rip}"
                    ),
                    hint=f"give one of its networks a subnet: {family.lower()}: …",
                )
            other = _other_checksum(placed, server)
            if other is not None:
                yield Violation(
                    path=path,
                    message=(
                        f"{server.node} decapsulates GRE with a checksum or without, and the "
                        f"service {other} sends it the other kind"
                    ),
                    hint="the same `checksum:` in both services",
                )
