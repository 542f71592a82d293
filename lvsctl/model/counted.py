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
hears all the time; and martian sources, which Linux counts for all namespaces together
(/proc/net/stat/rt_cache) and logs only where log_martians asks for it.
"""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Packets that a kernel dropped at a node for one reason (enum skb_drop_reason).

    ``where`` is the kernel's function. Only kernels with drop reasons tell (Linux 5.17 on,
    with tracing): elsewhere there are none, which says nothing.
    """

    node: str
    device: str
    reason: str
    where: str
    count: int = 1
