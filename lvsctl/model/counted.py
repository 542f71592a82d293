"""Kernel counters and drop reasons for lost packets, by nstat(8)'s names.

Sources: net/ipv4/proc.c and net/ipv6/proc.c (the names), RFC 4293 (ip…), and for the
reasons ip_input.c, ip_forward.c, route.c, fib_frontend.c, arp.c of Linux 6.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LOSSES: Mapping[str, str] = {
    "IpInHdrErrors": "TTL expired, or a damaged IP header",
    "IpInAddrErrors": "addressed to another host, and it does not forward",
    "IpInUnknownProtos": "no handler for the protocol inside IP: no such tunnel",
    "IpInDiscards": "dropped on input",
    "IpOutDiscards": "dropped on output",
    "IpOutNoRoutes": "no route for a packet to send",
    "IpFragFails": "larger than the MTU, and must not be fragmented",
    "IpExtInNoRoutes": "no route for a received packet",
    "IpExtInTruncatedPkts": "shorter than its header says",
    "TcpExtIPReversePathFilter": "source rejected by rp_filter",
    "TcpExtArpFilter": "an ARP request not answered because of arp_filter",
    "TcpExtListenDrops": "a connection that the listener could not accept",
    "TcpOutRsts": "RST sent: no listener, or no such connection",
    "TcpInCsumErrors": "wrong TCP checksum",
    "UdpNoPorts": "no listener on the UDP port",
    "UdpInCsumErrors": "wrong UDP checksum",
    "IcmpOutDestUnreachs": "ICMP destination unreachable sent",
    "IcmpOutTimeExcds": "ICMP time exceeded sent",
    "IcmpOutRedirects": "ICMP redirect sent",
    "Ip6InHdrErrors": "hop limit exceeded, or a damaged IPv6 header",
    "Ip6InAddrErrors": "addressed to another host, and it does not forward",
    "Ip6InNoRoutes": "no route for a received packet",
    "Ip6InTooBigErrors": "larger than the next link's MTU",
    "Ip6InDiscards": "dropped on input",
    "Ip6OutNoRoutes": "no route for a packet to send",
    "Ip6OutDiscards": "dropped on output",
    "Icmp6OutDestUnreachs": "ICMPv6 destination unreachable sent",
    "Icmp6OutTimeExcds": "ICMPv6 time exceeded sent",
}
"""Counters that grow if a packet is lost or an ICMP error about one is sent; what each means.

Left out: ARP requests for other nodes' addresses, which every neighbour receives all the time,
and martians, which Linux counts for all namespaces together.
"""


REASONS: Mapping[str, str] = {
    "IP_RPFILTER": "source rejected by rp_filter",
    "IP_LOCAL_SOURCE": "its source is the receiver's own address (martian)",
    "IP_INVALID_SOURCE": "invalid source (martian)",
    "IP_INVALID_DEST": "invalid destination (martian)",
    "IP_INADDRERRORS": "addressed to another host, and the receiver does not forward",
    "IP_INNOROUTES": "no route for a received packet",
    "IP_OUTNOROUTES": "no route for a packet to send",
    "IP_NOPROTO": "no handler for the protocol inside IP: no such tunnel",
    "IP_INHDR": "TTL expired, or a damaged IP header",
    "PKT_TOO_BIG": "larger than the MTU",
    "NO_SOCKET": "no listener on the port",
    "TC_INGRESS": "dropped by a tc filter",
    "NETFILTER_DROP": "dropped by a firewall",
    "NEIGH_FAILED": "no ARP reply for the next hop",
    "NEIGH_QUEUEFULL": "too many packets waited for an ARP reply",
    "TCP_LISTEN_OVERFLOW": "the listener's queue was full",
    "QDISC_DROP": "dropped by a queue",
}
"""Drop reasons of the kernel (dropreason-core.h) that point to a problem.

Those of every healthy network (a frame for another host, a closed socket) are left out.
"""


MARTIANS: Mapping[str, str] = {
    "in_martian_src": "martian: invalid source, or rejected by rp_filter",
    "in_martian_dst": "martian: invalid destination",
}
"""Counters of /proc/net/stat/rt_cache, which are of all namespaces together."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Packets that the kernel dropped for one reason, anywhere on the host that runs the lab.

    ``reason`` is one of ``REASONS`` if the kernel has tracing (from Linux 5.17), otherwise one
    of ``MARTIANS``, the only drops that other kernels report.
    """

    reason: str
    count: int

    @property
    def text(self) -> str:
        """What the reason means."""
        return REASONS.get(self.reason) or MARTIANS.get(self.reason, "")
