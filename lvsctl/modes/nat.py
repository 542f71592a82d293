"""NAT: the director rewrites the destination of requests and the source of replies.

    client ──VIP──▶ director ──RIP──▶ real server
    client ◀──VIP── director ◀──RIP── real server

The real servers need nothing for LVS: no VIP, no tunnel, no sysctl. Their replies must return
through the director, which is therefore their default gateway. (LVS HOWTO, "LVS-NAT".)

With ``snat`` the director replaces the source of requests too, so that replies come back to its
own address from anywhere, and the real servers do not see the client's.
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.model.lab import Role, Violation
from lvsctl.model.packet_filter import MasqueradeTarget
from lvsctl.model.service import ForwardingMethod, RealServer
from lvsctl.modes.base import Placed
from lvsctl.resources.base import Resource
from lvsctl.resources.masquerade import Masquerade
from lvsctl.resources.sysctl import Sysctl

_FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


class Nat:
    """See the module's docstring."""

    method = ForwardingMethod.NAT
    gateway_is_director = True

    def director_needs(self, placed: Placed) -> Iterator[Resource]:
        """Forwarding, for the replies; with one arm also no ICMP redirects to the real servers."""
        netns = placed.lab.netns(placed.director.name)
        for version in sorted({vip.version for vip in placed.service.vips}):
            yield Sysctl(
                netns=netns,
                name=_FORWARDING[version],
                value="1",
                why="replies from the real servers are routed through the director",
            )
        if placed.service.snat:
            yield from self._source_translation(placed, netns)
        elif self._one_arm(placed):
            # `default` is what its interfaces start with; `all` or the interface's own is enough
            # for a redirect to be sent (ip-sysctl.rst, send_redirects).
            for device in ("all", "default"):
                yield Sysctl(
                    netns=netns,
                    name=f"net.ipv4.conf.{device}.send_redirects",
                    value="0",
                    why="one arm: a redirect would make the real servers bypass the director",
                )

    @staticmethod
    def _source_translation(placed: Placed, netns: str) -> Iterator[Resource]:
        """Netfilter's connection tracking for what IPVS forwards, and a rule for each real server.

        Documentation/networking/ipvs-sysctl.rst, conntrack.
        """
        yield Sysctl(
            netns=netns,
            name="net.ipv4.vs.conntrack",
            value="1",
            why="netfilter must track what IPVS forwards, to replace its source",
        )
        for _, server in placed.servers(ForwardingMethod.NAT):
            ports = ((one.protocol, server.answers_at(one)) for one in placed.service.endpoints)
            for protocol, port in dict.fromkeys(ports):
                yield Masquerade(
                    netns=netns,
                    target=MasqueradeTarget(protocol, server.rip, port),
                    why=f"{server.node} answers to the director, and needs no route to the clients",
                )

    def real_server_needs(self, placed: Placed, server: RealServer) -> Iterator[Resource]:
        """Nothing: a real server behind NAT is any host with a private address.

        But with one arm in IPv6: Linux has no setting that keeps a router from sending redirects
        (ip6_forward in net/ipv6/ip6_output.c), so the real servers ignore them.
        """
        if server.rip.version == 6 and self._one_arm(placed):
            for device in ("all", "default"):
                yield Sysctl(
                    netns=placed.netns(server),
                    name=f"net.ipv6.conf.{device}.accept_redirects",
                    value="0",
                    why="one arm: a redirect would make it bypass the director",
                )

    def violations(self, placed: Placed) -> Iterator[Violation]:
        """Replies must return through the director: one hop away, and the only path."""
        if placed.service.snat:  # replies go to the director, wherever the real servers are
            return
        lab, director = placed.lab, placed.director
        for position, server in placed.servers(self.method):
            node = lab.node(server.node)
            path = ("services", placed.index, "real_servers", position)
            if not set(node.networks) & set(director.networks):
                yield Violation(
                    path=path,
                    message=(
                        f"{node.name} shares no network with {director.name}, "
                        "so the director cannot be its default gateway"
                    ),
                    hint=f"put {node.name} on one of: {', '.join(director.networks)}",
                )
            for client in lab.having(Role.CLIENT):
                shared = sorted(set(client.networks) & set(node.networks))
                if shared:
                    yield Violation(
                        path=path,
                        message=(
                            f"{node.name} and {client.name} are both on {shared[0]}: replies would "
                            "go directly to the client and bypass the director"
                        ),
                        hint="move the client to another network than the real servers",
                    )

    @staticmethod
    def _one_arm(placed: Placed) -> bool:
        """Whether replies leave the director by the interface that received them."""
        return any(
            placed.vip_device(vip) in placed.lab.node(server.node).networks
            for vip in placed.service.vips
            for _, server in placed.servers(ForwardingMethod.NAT)
        )
