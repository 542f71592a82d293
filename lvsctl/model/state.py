"""A node's state in the kernel: observed, never configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.lab import Impairment
from lvsctl.model.service import Encapsulation, ForwardingMethod, Protocol, ServiceMatch


@dataclass(frozen=True, slots=True)
class LinkState:
    """A device. ``kind`` is rtnetlink's (veth, bridge, ipip …; empty for lo); ``mtu`` in bytes."""

    name: str
    index: int
    kind: str
    mac: str
    mtu: int
    up: bool
    carrier: bool
    master: str = ""
    addresses: tuple[IPInterface, ...] = ()
    impairment: Impairment = field(default_factory=Impairment)
    noarp: bool = False
    """Whether the device does not use ARP (IFF_NOARP), as tunnels."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """A route of the main table. ``to`` None is the default route; ``via`` None is on-link."""

    to: IPNetwork | None
    via: IPAddress | None
    device: str
    kernel: bool
    """Made by the kernel itself, for an address."""


@dataclass(frozen=True, slots=True)
class NeighbourState:
    """An entry of the ARP or ND cache. ``state`` is one of ip-neighbour(8)'s words."""

    address: IPAddress
    device: str
    mac: str
    state: str


@dataclass(frozen=True, slots=True)
class ListenerState:
    """A listening socket, with the process that holds it if known.

    ``queued`` are connections (UDP: bytes) that the process has not accepted yet, ``backlog``
    how many connections may wait so (TCP). ``state`` is the process's, by proc_pid_stat(5)'s
    letter: T if it is stopped by a signal.
    """

    protocol: Protocol
    address: IPAddress
    port: int
    process: str = ""
    pid: int = 0
    queued: int = 0
    backlog: int = 0
    state: str = ""

    @property
    def full(self) -> bool:
        """Whether no further connection may wait to be accepted (sk_acceptq_is_full)."""
        return self.protocol is Protocol.TCP and 0 < self.backlog < self.queued


@dataclass(frozen=True, slots=True)
class Counters:
    """IPVS's counters of a service or of a real server: totals since it was added."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class RealServerState:
    """A real server in IPVS's table."""

    rip: IPAddress
    port: int
    forward: ForwardingMethod | str
    """A forwarding method, or IPVS's other methods (``local``, ``bypass``) by name."""
    weight: int
    upper: int
    lower: int
    active: int
    """Connections in state ESTABLISHED."""
    inactive: int
    """Connections in any other state."""
    counters: Counters = field(default_factory=Counters)
    encapsulation: Encapsulation = Encapsulation.IPIP
    """Used in TUN only."""
    tunnel_port: int = 0
    """The UDP port that GUE is sent to; 0 without GUE."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A virtual service in IPVS's table. ``persistence`` in seconds; 0: none."""

    match: ServiceMatch
    scheduler: str
    persistence: int
    real_servers: tuple[RealServerState, ...]
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, slots=True)
class Connection:
    """An entry of IPVS's connection table (/proc/net/ip_vs_conn). ``expires`` in seconds."""

    protocol: Protocol
    client: IPAddress
    client_port: int
    vip: IPAddress
    vport: int
    rip: IPAddress
    rport: int
    state: str
    expires: int


@dataclass(frozen=True, slots=True)
class NodeState:
    """One namespace. A sysctl that the kernel does not have is missing from ``sysctls``."""

    netns: str
    links: tuple[LinkState, ...] = ()
    routes: tuple[RouteState, ...] = ()
    neighbours: tuple[NeighbourState, ...] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    services: tuple[ServiceState, ...] = ()
    connections: tuple[Connection, ...] = ()
    listeners: tuple[ListenerState, ...] = ()
    gue_ports: tuple[int, ...] = ()
    """UDP ports on which GUE is decapsulated."""

    def link(self, name: str) -> LinkState | None:
        """The device called ``name``; None if it does not exist."""
        return next((link for link in self.links if link.name == name), None)


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


@dataclass(frozen=True, slots=True)
class Gauge:
    """What a node's kernel has counted since the namespace was made.

    Bytes and packets are those of the node's interfaces, loopback left out; a tunnel's are
    counted at the interface below it. ``counters`` by nstat(8)'s names.
    """

    received: int = 0
    sent: int = 0
    packets_received: int = 0
    packets_sent: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)


HalfOpen = frozenset[tuple[IPAddress, str]]
"""Connections in IPVS's table that wait for their handshake: the RIP, and what names them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything that is looked at, at ``when`` (``clock`` is the same on time.monotonic()'s).

    ``states`` and ``gauges`` by node; a node whose namespace is gone is in neither. ``table``
    is the director's. ``half_open`` is None where the connection table is too long to be read
    all the time. ``dropped`` are the drops that the kernel reported since the last sample.
    """

    when: float
    clock: float
    states: Mapping[str, NodeState]
    gauges: Mapping[str, Gauge]
    table: tuple[ServiceState, ...]
    half_open: HalfOpen | None
    dropped: tuple[Dropped, ...] = ()
