"""DR (direct routing): the director changes only the MAC addresses and the TTL of requests.

    client ──VIP──▶ director ──same IP packet, rs1's MAC──▶ rs1
    client ◀────────────────VIP──────────────────────────── rs1

Every real server holds the VIP too, on its loopback device, and must not answer ARP requests
for it: only the director may (the "ARP problem"). The real
servers answer the client directly, so they share an L2 segment with the director
but do not use it as their gateway. (LVS HOWTO, "LVS-DR" and "The ARP Problem".)
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.model.addresses import host_route
from lvsctl.model.lab import Violation
from lvsctl.model.service import ForwardingMethod, RealServer
from lvsctl.modes.base import Placed, no_port_mapping
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.sysctl import Sysctl


def arp_suppression(netns: str, vip: object) -> Iterator[Resource]:
    """Sysctls that suppress ARP for a VIP on a local device.

    On `all`: the kernel uses the maximum of `all` and the *receiving* interface, so setting
    it on `lo` alone has no effect. (ip-sysctl.rst, arp_ignore and arp_announce.)
    """
    yield Sysctl(
        netns=netns,
        name="net.ipv4.conf.all.arp_ignore",
        value="1",
        why=f"do not answer ARP requests for {vip}: it is not on the receiving interface",
    )
    yield Sysctl(
        netns=netns,
        name="net.ipv4.conf.all.arp_announce",
        value="2",
        why=f"do not send ARP requests from {vip}: neighbours would learn the wrong MAC for it",
    )


class DirectRouting:
    """See the module's docstring."""

    method = ForwardingMethod.DR
    gateway_is_director = False

    def director_needs(self, placed: Placed) -> Iterator[Resource]:
        """Nothing beyond the VIP and the IPVS table: not even forwarding."""
        yield from ()

    def real_server_needs(self, placed: Placed, server: RealServer) -> Iterator[Resource]:
        """ARP suppression, then the VIP on the loopback device. In that order."""
        netns = placed.netns(server)
        for vip in placed.service.vips:
            if vip.version == 4:
                yield from arp_suppression(netns, vip)
            yield Address(
                netns=netns,
                device="lo",
                address=host_route(vip),
                why="accept the requests that the director forwards, still addressed to the VIP",
            )

    def violations(self, placed: Placed) -> Iterator[Violation]:
        """No port mapping; director and real servers share one L2 segment."""
        yield from no_port_mapping(placed, self.method)
        director = placed.director
        for position, server in placed.servers(self.method):
            node = placed.lab.node(server.node)
            if not set(node.networks) & set(director.networks):
                yield Violation(
                    path=("services", placed.index, "real_servers", position),
                    message=(
                        f"{node.name} is on {', '.join(node.networks)} and {director.name} on "
                        f"{', '.join(director.networks)}: dr needs them on one network (L2 segment)"
                    ),
                    hint=f"put {node.name} on {director.networks[0]}, or use `forward: tun`",
                )
