"""Virtual services and their real servers, as configured.

What the kernel reports about them at run time (counters, connections) is
*observed* and lives in ``model.state``; the two are never mixed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

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

    @property
    def device(self) -> str:
        """The tunnel device of a real server that takes it off.

        What comes in by GUE goes on as IP in IP, to that one's device (net/ipv4/fou_core.c).
        """
        return "gre0" if self is Encapsulation.GRE else "tunl0"

    @property
    def device_kind(self) -> Encapsulation:
        """What that device itself understands, which is rtnetlink's word for its kind too."""
        return Encapsulation.GRE if self is Encapsulation.GRE else Encapsulation.IPIP


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


@dataclass(frozen=True, slots=True, order=True)
class VipPort:
    """A virtual service's match in the kernel: protocol, VIP and port."""

    protocol: Protocol
    vip: IPAddress
    port: int

    @property
    def version(self) -> int:
        """The address family, 4 or 6."""
        return self.vip.version

    @property
    def endpoints(self) -> tuple[VipPort, ...]:
        """Where clients reach the service: here."""
        return (self,)

    def __str__(self) -> str:
        return f"{Endpoint(self.vip, self.port)}/{self.protocol}"


@dataclass(frozen=True, slots=True, order=True)
class FwMark:
    """A virtual service's match in the kernel: a firewall mark, and what is marked with it.

    Packets to any of ``endpoints`` get the mark before IPVS sees them (ipvsadm(8), -f), so that
    several ports or VIPs are one service. The kernel knows the mark and the address family
    ``version`` (4 or 6) only.
    """

    mark: int
    version: int
    endpoints: tuple[VipPort, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"fwmark {self.mark}"


ServiceMatch = VipPort | FwMark
"""What names a virtual service in the kernel."""


@dataclass(frozen=True, slots=True)
class RealServer:
    """A real server of one virtual service.

    ``rip`` and ``port`` are where the director sends requests; ``weight`` 0 drains
    it; ``upper`` and ``lower`` are connection thresholds (0: none; ipvsadm(8) -x, -y).
    ``forward`` and ``encapsulation`` are its own: IPVS allows several methods in one service.
    ``tunnel_port`` is the UDP port that GUE is sent to; 0 with other encapsulations.
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


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A service that clients reach through its VIP.

    ``persistence`` is the persistence timeout in seconds (0: not persistent). ``forward`` and
    ``encapsulation`` are the default of its real servers. ``one_packet``: every packet is
    scheduled by itself, and no connection is kept (ipvsadm(8), --ops; UDP only). ``snat``: the
    director replaces the source of requests by its own address (nat only).
    """

    name: str
    match: ServiceMatch
    forward: ForwardingMethod
    scheduler: Scheduler
    real_servers: tuple[RealServer, ...]
    encapsulation: Encapsulation = Encapsulation.IPIP
    persistence: int = 0
    one_packet: bool = False
    snat: bool = False

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

    def by(self, method: ForwardingMethod) -> tuple[RealServer, ...]:
        """The real servers that requests are forwarded to by ``method``."""
        return tuple(server for server in self.real_servers if server.forward is method)

    @property
    def methods(self) -> tuple[ForwardingMethod, ...]:
        """The forwarding methods of its real servers, each once; the default without any."""
        return tuple(dict.fromkeys(server.forward for server in self.real_servers)) or (
            self.forward,
        )
