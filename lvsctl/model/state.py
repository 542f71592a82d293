"""A node's state in the kernel: observed, never configured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.lab import Impairment
from lvsctl.model.packet_filter import FilterRule
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    FwMark,
    IpvsTimeouts,
    Protocol,
    ServiceMatch,
)


class Setting(NamedTuple):
    """A value that differs from that of a fresh namespace, or of a new device of the same kind."""

    name: str
    value: str
    usual: str
    group: str = "link"
    """Of a device: ``link`` (any), ``bridge``, ``port`` (of a bridge) or ``tunnel``."""

    def __str__(self) -> str:
        """Return the difference as a phrase."""
        return f"{self.name} is {self.value}, not {self.usual}"


class AddressState(NamedTuple):
    """An address that is not as ``ip addr add`` makes it.

    ``flags`` are ip-address(8)'s words (deprecated, tentative, dadfailed, …); ``peer`` is the
    other end of a point-to-point address.
    """

    address: IPInterface
    flags: tuple[str, ...] = ()
    peer: str = ""
    scope: str = ""
    """Empty where it is the usual one, ip-address(8)'s word otherwise."""


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
    settings: tuple[Setting, ...] = ()
    """What differs from a new device of the same kind: flags, MTU (``mtu``), parameters of a
    tunnel or bridge (``ttl``, ``stp_state``), of a bridge's port (``isolated``, ``state``)."""
    offloads: tuple[str, ...] = ()
    """The offloads that change frames and are on (``ethtool -k``), of a node's veth only."""
    unusual_addresses: tuple[AddressState, ...] = ()
    """Those of ``addresses`` that are not as ``ip addr add`` makes them."""
    peer: int = 0
    """The ifindex of a veth's other end, or of the device below this one; 0: none."""
    peer_elsewhere: bool = False
    """Whether that one is in another namespace."""

    def setting(self, name: str) -> str:
        """The value of one of ``settings``; empty where it is as usual."""
        return next((one.value for one in self.settings if one.name == name), "")


MAIN_TABLE = 254
"""The number of the routing table ``main`` (ip-route(8)); ``local`` is 255."""


class RouteState(NamedTuple):
    """A route. ``to`` None is the default route; ``via`` None is on-link.

    A route over several next hops is one entry for each.
    """

    to: IPNetwork | None
    via: IPAddress | None
    device: str
    kernel: bool
    """Made by the kernel itself, for an address."""
    table: int = MAIN_TABLE
    type: str = "unicast"
    """ip-route(8)'s word: unicast, local, blackhole, unreachable, prohibit, throw …"""
    metric: int = 0
    version: int = 4
    details: tuple[str, ...] = ()
    """What else was given to it, in ip-route(8)'s words: ``src 10.0.0.1``, ``mtu 1400``."""
    hops: int = 1
    """How many next hops the route has, this one included."""
    weight: int = 1
    """The share of flows that this next hop gets, of those of the route (ip-route(8))."""

    @property
    def by_object(self) -> tuple[str, ...]:
        """How ip-route(8) names the next hop object that it uses; empty: none."""
        return next((tuple(one.split()) for one in self.details if one.startswith("nhid ")), ())


class RuleState(NamedTuple):
    """A rule of policy routing, as ip-rule(8) prints it (``text``, without the preference)."""

    version: int
    preference: int
    text: str
    raw: str
    """The rule as the kernel reports it, in hexadecimal, to delete exactly this one."""


class QdiscState(NamedTuple):
    """A queueing discipline that devices do not have by themselves (tc(8)).

    ``parent`` is ``root``, ``ingress``, ``clsact`` or a class; ``options`` in tc's words as far
    as they are known.
    """

    device: str
    kind: str
    handle: str
    parent: str
    options: tuple[str, ...] = ()
    drops: int = 0
    """Packets that it has dropped."""


class FilterState(NamedTuple):
    """A filter of traffic control (tc-u32(8) and others), and the actions in it by kind.

    ``match`` is what flower matches, in tc-flower(8)'s words, or the keys of u32 as tc(8) lists
    them; of other kinds it is not read.
    """

    device: str
    parent: str
    kind: str
    preference: int
    protocol: str
    actions: tuple[str, ...] = ()
    match: tuple[str, ...] = ()


class NextHopState(NamedTuple):
    """A next hop object (ip-nexthop(8)), which routes can use; ``text`` in ip's words."""

    id: int
    text: str
    device: str = ""


class TcpMetricsState(NamedTuple):
    """What TCP has learnt of a peer (ip-tcp_metrics(8)). ``rtt`` in milliseconds; 0: unknown."""

    address: IPAddress
    source: IPAddress | None = None
    rtt: int = 0
    fastopen: bool = False
    """Whether it contains a cookie of TCP Fast Open, or SYNs with data that were lost."""


class XfrmState(NamedTuple):
    """A policy or state of IPsec, as ``text`` in ip-xfrm(8)'s words.

    ``what`` is ``policy``, ``state``, or ``default``: what happens without a policy.
    """

    what: str
    text: str
    raw: str
    """What names it for the kernel, in hexadecimal."""


class FdbState(NamedTuple):
    """An entry of a bridge's forwarding table that was configured, not learned."""

    mac: str
    device: str
    flags: tuple[str, ...] = ()
    vlan: int = 0


class VlanState(NamedTuple):
    """A VLAN that a port of a bridge (or the bridge) belongs to."""

    device: str
    vlan: int
    flags: tuple[str, ...] = ()


ChangedSysctls = Mapping[str, tuple[Setting, ...]]
"""By namespace, the sysctls that no plan sets and that differ from a fresh namespace's."""


class SyncDaemonState(NamedTuple):
    """IPVS's connection synchronization daemon: ``state`` is master or backup."""

    state: str
    interface: str
    sync_id: int


class ProcessState(NamedTuple):
    """A process of the lab. ``state`` is proc_pid_stat(5)'s letter; T: stopped by a signal."""

    pid: int
    process: str
    state: str


class NeighbourState(NamedTuple):
    """An entry of the ARP or ND cache. ``state`` is one of ip-neighbour(8)'s words."""

    address: IPAddress
    device: str
    mac: str
    state: str


class ListenerState(NamedTuple):
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
    foreign: bool = False
    """Whether another process than the lab's responder holds it (known only of a whole lab)."""

    @property
    def full(self) -> bool:
        """Whether no further connection may wait to be accepted (sk_acceptq_is_full)."""
        return self.protocol is Protocol.TCP and self.backlog < self.queued


class Counters(NamedTuple):
    """IPVS's counters of a service or of a real server: totals since it was added."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class RealServerState(NamedTuple):
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
    counters: Counters = Counters()
    encapsulation: Encapsulation = Encapsulation.IPIP
    """Used in TUN only."""
    tunnel_port: int = 0
    """The UDP port that GUE is sent to; 0 without GUE."""
    persistent: int = 0
    """Persistence templates that bind clients to it."""
    tunnel_flags: int = 0
    """IP_VS_TUNNEL_ENCAP_FLAG_*: 1 checksum, 2 remote checksum offload; 0: none."""


class ServiceState(NamedTuple):
    """A virtual service in IPVS's table. ``persistence`` in seconds; 0: none."""

    match: ServiceMatch
    scheduler: str
    persistence: int
    real_servers: tuple[RealServerState, ...]
    counters: Counters = Counters()
    flags: tuple[str, ...] = ()
    """ipvsadm(8)'s words: ``ops`` (one packet), ``flag-1`` to ``flag-3`` of the scheduler."""
    netmask: int = 0
    """Bits of a client's address that persistence looks at; 0: all of them."""
    engine: str = ""
    """The persistence engine (ipvsadm --pe); empty: none."""


def added_up(tables: Iterable[ServiceState]) -> ServiceState | None:
    """Return one service of several directors as one: connections and counters added up.

    A real server is in it if it is in any of the ``tables``; whatever else differs is as in the
    first of them. None without any.
    """
    several = tuple(tables)
    if len(several) < 2:
        return next(iter(several), None)
    servers: dict[tuple[IPAddress, int], list[RealServerState]] = {}
    for table in several:
        for server in table.real_servers:
            servers.setdefault((server.rip, server.port), []).append(server)
    return several[0]._replace(
        real_servers=tuple(
            same[0]._replace(
                active=sum(one.active for one in same),
                inactive=sum(one.inactive for one in same),
                persistent=sum(one.persistent for one in same),
                counters=_sum(one.counters for one in same),
            )
            for same in servers.values()
        ),
        counters=_sum(table.counters for table in several),
    )


def _sum(several: Iterable[Counters]) -> Counters:
    return Counters(*map(sum, zip(*several, strict=True)))


class Connection(NamedTuple):
    """An entry of IPVS's connection table (/proc/net/ip_vs_conn). ``expires`` in seconds.

    A persistence template has client port 0. That of a firewall mark has neither protocol (None),
    VIP (the unspecified address) nor port, but the ``mark``.
    """

    protocol: Protocol | None
    client: IPAddress
    client_port: int
    vip: IPAddress
    vport: int
    rip: IPAddress
    rport: int
    state: str
    expires: int
    mark: int = 0

    @property
    def is_template(self) -> bool:
        """Whether it binds a client, or a call, to a real server, and is no connection."""
        return not self.client_port

    def belongs_to(self, match: ServiceMatch) -> bool:
        """Whether it is an entry of the virtual service that ``match`` names."""
        if isinstance(match, FwMark) and self.mark:
            return self.mark == match.mark
        return any(
            (self.protocol, self.vip) == (one.protocol, one.vip) and self.vport in (one.port, 0)
            for one in match.endpoints
        )


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
    gue_ports6: tuple[int, ...] = ()
    """The same over IPv6."""
    packet_filters: tuple[FilterRule, ...] = ()
    nftables: bool = False
    """Of a director: whether the kernel has nftables for IPv4 and IPv6."""
    whole: bool = False
    """Whether everything below was read too: only then does its absence mean anything."""
    other_routes: tuple[RouteState, ...] = ()
    """Routes of tables other than main; of table local only those that a user added."""
    local_addresses: tuple[str, ...] = ()
    """The destinations of table local that the kernel made itself."""
    rules: tuple[RuleState, ...] = ()
    """All rules of policy routing, the usual ones too."""
    proxies: tuple[NeighbourState, ...] = ()
    """Addresses that the node answers ARP or ND for in place of others (ip neigh show proxy)."""
    qdiscs: tuple[QdiscState, ...] = ()
    filters: tuple[FilterState, ...] = ()
    xfrm: tuple[XfrmState, ...] = ()
    nexthops: tuple[NextHopState, ...] = ()
    tcp_metrics: tuple[TcpMetricsState, ...] = ()
    fdb: tuple[FdbState, ...] = ()
    vlans: tuple[VlanState, ...] = ()
    changed_sysctls: tuple[Setting, ...] | None = ()
    """Sysctls that differ from those of a fresh namespace, apart from what a lab sets.

    None: not compared, although the rest was read as a whole: it takes longest, and no claim asks.
    """
    ipvs_timeouts: IpvsTimeouts | None = None
    """Of a director."""
    sync_daemons: tuple[SyncDaemonState, ...] = ()
    processes: tuple[ProcessState, ...] = ()
    """Processes of the lab in this namespace, or that listen in it."""
    keepalived_file: str = ""
    """The configuration that lvsctl wrote for a keepalived that runs here, as the file is now."""

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
    "NETFILTER_DROP": "dropped by a rule of netfilter",
    "NEIGH_FAILED": "no ARP reply for the next hop",
    "NEIGH_CREATEFAIL": (
        "no room for another neighbour in the table that all namespaces share "
        "(net.ipv4.neigh.default.gc_thresh3)"
    ),
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
    all the time; ``left`` are those of them that IPVS only keeps until their timeout, because the
    real server has answered others since. ``dropped`` are the drops that the kernel reported since
    the last sample.
    """

    when: float
    clock: float
    states: Mapping[str, NodeState]
    gauges: Mapping[str, Gauge]
    table: tuple[ServiceState, ...]
    half_open: HalfOpen | None
    dropped: tuple[Dropped, ...] = ()
    left: HalfOpen = frozenset()
