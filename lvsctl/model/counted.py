"""What a kernel counts of packets that it did not carry on, by nstat(8)'s names.

Sources: net/ipv4/proc.c and net/ipv6/proc.c (the names), RFC 4293 (ip…), and for the
reasons ip_input.c, ip_forward.c, route.c, fib_frontend.c, arp.c of Linux 6.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOSSES: Mapping[str, str] = {
    "IpInHdrErrors": "TTL over, or a damaged IP header",
    "IpInAddrErrors": "addressed to somebody else, and it does not forward",
    "IpInUnknownProtos": "no taker for the protocol inside IP: no such tunnel",
    "IpInDiscards": "dropped on the way in",
    "IpOutDiscards": "dropped on the way out",
    "IpOutNoRoutes": "no route for what it wants to send",
    "IpFragFails": "larger than the MTU, and must not be fragmented",
    "IpExtInNoRoutes": "no route for what came in",
    "IpExtInTruncatedPkts": "shorter than its header says",
    "TcpExtIPReversePathFilter": "source refused by rp_filter",
    "TcpExtArpFilter": "an ARP question left unanswered by arp_filter",
    "TcpExtListenDrops": "a connection that the listener could not take",
    "TcpOutRsts": "a reset sent: no listener, or no such connection",
    "TcpInCsumErrors": "wrong TCP checksum",
    "UdpNoPorts": "nobody listens at the UDP port",
    "UdpInCsumErrors": "wrong UDP checksum",
    "IcmpOutDestUnreachs": "ICMP destination unreachable sent",
    "IcmpOutTimeExcds": "ICMP time exceeded sent",
    "IcmpOutRedirects": "ICMP redirect sent",
    "Ip6InHdrErrors": "hop limit over, or a damaged IPv6 header",
    "Ip6InAddrErrors": "addressed to somebody else, and it does not forward",
    "Ip6InNoRoutes": "no route for what came in",
    "Ip6InTooBigErrors": "larger than the next link's MTU",
    "Ip6InDiscards": "dropped on the way in",
    "Ip6OutNoRoutes": "no route for what it wants to send",
    "Ip6OutDiscards": "dropped on the way out",
    "Icmp6OutDestUnreachs": "ICMPv6 destination unreachable sent",
    "Icmp6OutTimeExcds": "ICMPv6 time exceeded sent",
}
"""Counters that grow where a packet ends, or a complaint about one is sent; what each means.

Not among them: ARP questions for addresses that are not the node's, which every neighbour
hears all the time; and martians, which Linux counts for all namespaces together.
"""


REASONS: Mapping[str, str] = {
    "IP_RPFILTER": "source refused by rp_filter",
    "IP_LOCAL_SOURCE": "its source is the receiver's own address (martian)",
    "IP_INVALID_SOURCE": "a source that cannot be (martian)",
    "IP_INVALID_DEST": "a destination that cannot be (martian)",
    "IP_INADDRERRORS": "addressed to somebody else, and the receiver does not forward",
    "IP_INNOROUTES": "no route for what came in",
    "IP_OUTNOROUTES": "no route for what was to be sent",
    "IP_NOPROTO": "no taker for the protocol inside IP: no such tunnel",
    "IP_INHDR": "TTL over, or a damaged IP header",
    "PKT_TOO_BIG": "larger than the MTU",
    "NO_SOCKET": "nobody listens at the port",
    "TC_INGRESS": "dropped by a filter of tc",
    "NETFILTER_DROP": "dropped by a firewall",
    "NEIGH_FAILED": "nobody answered ARP for the next hop",
    "NEIGH_QUEUEFULL": "too many packets waited for an ARP answer",
    "TCP_LISTEN_OVERFLOW": "the listener's queue was full",
    "QDISC_DROP": "dropped by a queue",
}
"""Reasons of the kernel's for dropping a packet (dropreason-core.h) that say what is wrong.

Those that every healthy network has (a frame for another host, a closed socket) are left out.
"""


MARTIANS: Mapping[str, str] = {
    "in_martian_src": "a source that cannot be, or is refused by rp_filter: a martian",
    "in_martian_dst": "a destination that cannot be: a martian",
}
"""What every kernel counts in /proc/net/stat/rt_cache, for all namespaces together."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Packets that the kernel dropped for one reason, anywhere on the host that runs the lab.

    ``reason`` is one of ``REASONS`` where the kernel has tracing (Linux 5.17 on), elsewhere
    one of ``MARTIANS``: there, what else was dropped is not told.
    """

    reason: str
    count: int

    @property
    def says(self) -> str:
        """What the reason means."""
        return REASONS.get(self.reason) or MARTIANS.get(self.reason, "")
