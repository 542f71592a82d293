"""Virtual services and their real servers, as configured.

What the kernel reports about them at run time (counters, connections) is
*observed* and lives in ``model.state``; the two are never mixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple, Self

from lvsctl.model.addresses import Endpoint, IPAddress


class ForwardingMethod(StrEnum):
    """How the director hands a request to a real server (IPVS's packet forwarding methods)."""

    NAT = "nat"
    TUN = "tun"
    DR = "dr"


class Encapsulation(StrEnum):
    """What the tunnel of the ``tun`` forwarding method puts around the request."""

    IPIP = "ipip"
    GRE = "gre"
    GUE = "gue"

    def decapsulated_by(self, outer: int, inner: int) -> TunnelKind:
        """The kind of device that decapsulates it, by the IP versions of its two IP headers.

        GRE's devices take both inner versions. What comes in by GUE goes on as IP in IP, to that
        one's device (net/ipv4/fou_core.c).
        """
        if self is Encapsulation.GRE:
            return TunnelKind.GRE if outer == 4 else TunnelKind.IP6GRE
        if outer == 6:
            return TunnelKind.IP6TNL
        return TunnelKind.IPIP if inner == 4 else TunnelKind.SIT


class TunnelChecksum(StrEnum):
    """What IPVS sums up in a tunnel's own header (ipvsadm(8), --tun-csum and its siblings)."""

    NONE = "none"
    FULL = "full"
    """The whole packet: GRE's option (RFC 2784), or UDP's checksum around GUE."""
    REMOTE = "remote"
    """GUE's remote checksum offload, of packets whose own checksum is still to be computed; UDP has
    one too."""

    @property
    def flags(self) -> int:
        """The kernel's IP_VS_TUNNEL_ENCAP_FLAG_* (linux/ip_vs.h)."""
        return {TunnelChecksum.NONE: 0, TunnelChecksum.FULL: 1, TunnelChecksum.REMOTE: 2}[self]


class TunnelKind(StrEnum):
    """Kinds of tunnel devices, in rtnetlink's words (ip-link(8))."""

    IPIP = "ipip"
    """IPv4 in IPv4."""
    SIT = "sit"
    """IPv6 in IPv4."""
    IP6TNL = "ip6tnl"
    """IPv4 or IPv6 in IPv6."""
    GRE = "gre"
    """GRE in IPv4."""
    IP6GRE = "ip6gre"
    """GRE in IPv6."""

    @property
    def device(self) -> str:
        """The name of the device that takes packets of any sender: that of the kernel's own."""
        return {TunnelKind.IPIP: "tunl0"}.get(self, f"{self}0")

    @property
    def checking_device(self) -> str:
        """The name of a device of GRE that takes packets with a checksum, and no others.

        Another one than ``device``, whose parameters cannot be changed where the kernel made it.
        """
        return {TunnelKind.GRE: "gre-csum", TunnelKind.IP6GRE: "gre6-csum"}[self]

    @property
    def module(self) -> str:
        """The kernel module that has it."""
        modules = {
            TunnelKind.IP6TNL: "ip6_tunnel",
            TunnelKind.GRE: "ip_gre",
            TunnelKind.IP6GRE: "ip6_gre",
        }
        return modules.get(self, str(self))


GUE_PORT = 6080
"""The UDP port of Generic UDP Encapsulation (IANA, Service Name and Port Number Registry)."""


class Protocol(StrEnum):
    """Transport protocols that IPVS balances."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"

    @property
    def number(self) -> int:
        """The protocol's number in the IP header (IANA, Assigned Internet Protocol Numbers)."""
        return {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}[self]

    @property
    def has_connections(self) -> bool:
        """Whether clients connect first, so that a request may be longer than a packet."""
        return self is not Protocol.UDP


class Scheduler(StrEnum):
    """IPVS's schedulers, by the names that ``ipvsadm -s`` takes (ipvsadm(8))."""

    RR = "rr"
    WRR = "wrr"
    LC = "lc"
    WLC = "wlc"
    LBLC = "lblc"
    LBLCR = "lblcr"
    DH = "dh"
    SH = "sh"
    SED = "sed"
    NQ = "nq"
    FO = "fo"
    OVF = "ovf"
    MH = "mh"
    TWOS = "twos"


class SchedulerFlag(StrEnum):
    """What sh and mh may do besides (ipvsadm(8), -b: sh-fallback, sh-port and the same of mh)."""

    FALLBACK = "fallback"
    """Another real server gets the connection where the chosen one takes none."""
    PORT = "port"
    """The client's port is hashed with its address."""


FLAGGED = (Scheduler.SH, Scheduler.MH)
"""The schedulers that have flags."""


class PersistenceEngine(StrEnum):
    """What persistence tells clients apart by, besides their address (ipvsadm(8), --pe)."""

    SIP = "sip"
    """The Call-ID of the Session Initiation Protocol."""


ASKED_OF_ANY = (80, 443)
"""The ports of a service of any port that lvsctl sends its own requests to."""


@dataclass(frozen=True, slots=True, order=True)
class VipPort:
    """A virtual service's match in the kernel: protocol, VIP and port (0: any)."""

    protocol: Protocol
    vip: IPAddress
    port: int

    @property
    def version(self) -> int:
        """The address family, 4 or 6."""
        return self.vip.version

    @property
    def endpoints(self) -> tuple[VipPort, ...]:
        """Where clients reach the service; of any port, those that lvsctl's requests use."""
        if self.port:
            return (self,)
        return tuple(VipPort(self.protocol, self.vip, port) for port in ASKED_OF_ANY)

    def __str__(self) -> str:
        if not self.port:
            return f"any {self.protocol} port of {self.vip}"
        return f"{Endpoint(self.vip, self.port)}/{self.protocol}"


class PortRange(NamedTuple):
    """Ports from ``first`` to ``last``."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}" if self.last > self.first else str(self.first)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the ports that ``str`` wrote as ``text``. Raises ValueError."""
        first, _, last = text.partition("-")
        return cls(int(first), int(last or first))


@dataclass(frozen=True, slots=True, order=True)
class FwMark:
    """A virtual service's match in the kernel: a firewall mark, and what is marked with it.

    Packets to ``ports`` (empty: any) of the VIPs get the mark before IPVS sees them (ipvsadm(8),
    -f), so that several ports or VIPs are one service. ``endpoints`` are those that lvsctl sends
    requests to. The kernel knows the mark and the address family ``version`` (4 or 6) only.
    """

    mark: int
    version: int
    endpoints: tuple[VipPort, ...] = field(default=(), compare=False)
    ports: tuple[PortRange, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"fwmark {self.mark}"


ServiceMatch = VipPort | FwMark
"""What names a virtual service in the kernel."""


@dataclass(frozen=True, slots=True)
class RealServer:
    """A real server of one virtual service.

    ``rip`` and ``port`` are where the director sends requests (port 0: to the port that the
    client asked, as services of several ports need it); ``weight`` 0 drains it; ``upper`` and
    ``lower`` are connection thresholds (0: none; ipvsadm(8) -x, -y). ``forward`` and
    ``encapsulation`` are its own: IPVS allows several methods in one service.
    ``tunnel_port`` is the UDP port that GUE is sent to; 0 with other encapsulations.
    ``checksum`` is that of the tunnel's own header.
    ``local``: it is the director itself, which delivers these requests to its own process,
    whatever the forwarding method (net/netfilter/ipvs/ip_vs_xmit.c, crosses_local_route_boundary).
    """

    node: str
    rip: IPAddress
    port: int
    weight: int = 1
    upper: int = 0
    lower: int = 0
    forward: ForwardingMethod = field(kw_only=True)
    encapsulation: Encapsulation = field(default=Encapsulation.IPIP, kw_only=True)
    tunnel_port: int = field(default=0, kw_only=True)
    checksum: TunnelChecksum = field(default=TunnelChecksum.NONE, kw_only=True)
    local: bool = field(default=False, kw_only=True)

    def answers_at(self, endpoint: VipPort) -> int:
        """The port at which it gets requests that clients send to ``endpoint``."""
        return self.port or endpoint.port

    def tunnel(self, vip: IPAddress) -> TunnelKind:
        """The kind of tunnel device that decapsulates requests to ``vip`` there."""
        return self.encapsulation.decapsulated_by(self.rip.version, vip.version)

    @property
    def checked_gre(self) -> bool:
        """Whether its tunnel is GRE with a checksum: a device takes such packets, or all others.

        ip_tunnel_rcv in net/ipv4/ip_tunnel.c, __ip6_tnl_rcv in net/ipv6/ip6_tunnel.c.
        """
        return self.encapsulation is Encapsulation.GRE and self.checksum is TunnelChecksum.FULL

    def tunnel_device(self, vip: IPAddress) -> str:
        """The name of the tunnel device that decapsulates requests to ``vip`` there."""
        kind = self.tunnel(vip)
        return kind.checking_device if self.checked_gre else kind.device

    @property
    def tunnel_text(self) -> str:
        """Its encapsulation with what is not usual: ``gue to UDP port 6081 with checksum``."""
        return tunnel_text(self.encapsulation, self.tunnel_port, self.checksum.flags)


def tunnel_text(encapsulation: Encapsulation, port: int, flags: int) -> str:
    """Say an encapsulation with its UDP port and ``TunnelChecksum.flags``."""
    checksum = {0: "", 1: " with checksum", 2: " with remote checksum"}
    to = f" to UDP port {port}" if port else ""
    return f"{encapsulation}{to}{checksum.get(flags, f' with flags {flags}')}"


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A service that clients reach through its VIP.

    ``persistence`` is the persistence timeout in seconds (0: not persistent); clients count as
    one whose addresses have the first ``netmask`` bits in common (0: all bits), or as ``engine``
    tells them apart. ``flags`` are the scheduler's. ``forward`` and ``encapsulation`` are the
    default of its real servers. ``one_packet``: every packet is scheduled by itself, and no
    connection is kept (ipvsadm(8), --ops; UDP only). ``snat``: the director replaces the source
    of requests by its own address (nat only). ``sorry`` is the server that keepalived puts into the
    table while no real server is usable; IPVS itself has no such thing.
    """

    name: str
    match: ServiceMatch
    forward: ForwardingMethod
    scheduler: Scheduler
    real_servers: tuple[RealServer, ...]
    encapsulation: Encapsulation = Encapsulation.IPIP
    persistence: int = 0
    flags: tuple[SchedulerFlag, ...] = ()
    netmask: int = 0
    engine: PersistenceEngine | None = None
    one_packet: bool = False
    snat: bool = False
    sorry: RealServer | None = None

    @property
    def prepared(self) -> VirtualService:
        """The service with its sorry server as a real server: what the hosts must be ready for."""
        if self.sorry is None:
            return self
        return replace(self, real_servers=(*self.real_servers, self.sorry), sorry=None)

    @property
    def keeps_client(self) -> bool:
        """Whether persistence keeps a client with one real server, whatever it asks.

        With ``engine`` sip it keeps a call instead, of whichever client.
        """
        return bool(self.persistence) and self.engine is None

    @property
    def keeps_calls(self) -> bool:
        """Whether persistence keeps the requests of a SIP call with one real server."""
        return bool(self.persistence) and self.engine is PersistenceEngine.SIP

    @property
    def endpoints(self) -> tuple[VipPort, ...]:
        """Where clients reach the service."""
        return self.match.endpoints

    @property
    def endpoint(self) -> VipPort:
        """The first of them, which lvsctl's own requests are sent to."""
        return self.endpoints[0]

    @property
    def vips(self) -> tuple[IPAddress, ...]:
        """The addresses that clients use, each once."""
        return tuple(dict.fromkeys(endpoint.vip for endpoint in self.endpoints))

    def takes(self, end: Endpoint) -> bool:
        """Whether clients reach it at an address and port, also one that lvsctl does not ask."""
        if isinstance(self.match, VipPort):
            return end.address == self.match.vip and self.match.port in (end.port, 0)
        ports = self.match.ports
        marked = not ports or any(one.first <= end.port <= one.last for one in ports)
        return end.address in self.vips and marked

    def is_sorry(self, rip: IPAddress) -> bool:
        """Whether a table's entry for ``rip`` is the sorry server: the director has many names."""
        if self.sorry is None:
            return False
        itself = self.sorry.local and (rip.is_loopback or rip in self.vips)
        return itself or rip == self.sorry.rip

    def by(self, method: ForwardingMethod) -> tuple[RealServer, ...]:
        """The real servers that requests are forwarded to by ``method``."""
        return tuple(server for server in self.real_servers if server.forward is method)

    @property
    def ways(self) -> tuple[tuple[ForwardingMethod, Encapsulation], ...]:
        """How real servers beyond the director get requests, each once; the default without any."""
        ways = dict.fromkeys((server.forward, server.encapsulation) for server in self.remote)
        return tuple(ways) or ((self.forward, self.encapsulation),)

    @property
    def remote(self) -> tuple[RealServer, ...]:
        """The real servers that are not the director itself."""
        return tuple(server for server in self.real_servers if not server.local)

    @property
    def local(self) -> tuple[RealServer, ...]:
        """The director as a real server; empty if it is none."""
        return tuple(server for server in self.real_servers if server.local)

    def only(self, method: ForwardingMethod, encapsulation: Encapsulation) -> VirtualService:
        """The service as if it had only the real servers that get requests in one of its ways."""
        way = (method, encapsulation)
        if self.ways == (way,) and not self.local:
            return replace(self, forward=method, encapsulation=encapsulation)
        theirs = tuple(s for s in self.remote if (s.forward, s.encapsulation) == way)
        return replace(self, forward=method, encapsulation=encapsulation, real_servers=theirs)

    @property
    def methods(self) -> tuple[ForwardingMethod, ...]:
        """The forwarding methods of its real servers, each once; the default without any."""
        return tuple(dict.fromkeys(server.forward for server in self.real_servers)) or (
            self.forward,
        )


@dataclass(frozen=True, slots=True)
class IpvsTimeouts:
    """How long IPVS keeps an idle connection, in seconds (ipvsadm -L --timeout)."""

    tcp: int = 900
    tcp_fin: int = 120
    udp: int = 300
