"""The headers of a packet as they were on the wire, and what they carry.

Only what claims, walks and reports look at; the bytes themselves are kept beside it.
Numbers are the wire's own (IANA's protocol numbers, ICMP types). The decoder that
fills these in is ``observe.decode``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address

from lvsctl.model.addresses import Endpoint, IPAddress
from lvsctl.model.service import Encapsulation

ICMP, IPIP, TCP, UDP, IPV6, GRE, ICMPV6, SCTP = 1, 4, 6, 17, 41, 47, 58, 132
"""Protocol numbers (IANA, Assigned Internet Protocol Numbers)."""


@dataclass(frozen=True, slots=True)
class Ip:
    """An IPv4 (RFC 791) or IPv6 (RFC 8200) header.

    ``ttl`` is IPv6's hop limit and ``tos`` its traffic class. ``protocol`` is that of
    what follows IPv6's extension headers. ``identification`` and ``fragment_offset``
    (in bytes) are IPv6's fragment header's, 0 without one. ``total_length`` and
    ``header_length`` are in bytes, extension headers included in both; ``at`` is where
    the header begins in the captured bytes. ``checksum_ok`` is True for IPv6.
    """

    version: int
    src: IPAddress
    dst: IPAddress
    ttl: int
    protocol: int
    identification: int
    df: bool
    mf: bool
    fragment_offset: int
    total_length: int
    header_length: int
    tos: int
    flow_label: int
    checksum_ok: bool
    at: int

    @property
    def is_fragment(self) -> bool:
        """Whether this is a piece of a packet; only the first piece has a transport header."""
        return self.mf or self.fragment_offset > 0

    @property
    def ttl_name(self) -> str:
        """What the field is called: ``TTL``, or ``hop limit`` in IPv6."""
        return "TTL" if self.version == 4 else "hop limit"

    def same_but_ttl(self, other: Ip) -> bool:
        """Whether ``other`` is this header, with any TTL: what plain routing leaves of it."""
        return replace(self, ttl=0, at=0) == replace(other, ttl=0, at=0)

    def __str__(self) -> str:
        return f"{self.src} → {self.dst} {self.ttl_name.lower()} {self.ttl}"


@dataclass(frozen=True, slots=True)
class Gre:
    """A GRE header (RFC 2784, RFC 2890). ``protocol`` is an EtherType.

    ``key`` and ``sequence`` are None where the header has none. ``carrier`` is the index,
    among the packet's IP headers, of the one in which it travels.
    """

    protocol: int
    key: int | None
    sequence: int | None
    checksum: bool
    """Whether the header carries a checksum; it is not verified."""
    carrier: int


@dataclass(frozen=True, slots=True)
class Gue:
    """Generic UDP Encapsulation (draft-ietf-intarea-gue-09), and the UDP header in front of it.

    ``variant`` 1 has no header of its own: an IP packet directly in UDP. ``flags`` and
    ``private`` (Linux's private flags; net/gue.h) are 0 there. ``protocol`` is an IP
    protocol number; ``carrier`` as for ``Gre``.
    """

    sport: int
    dport: int
    variant: int
    protocol: int
    flags: int
    private: int
    carrier: int
    checksum: bool = False
    """Whether the UDP header carries a checksum; it is not verified."""

    @property
    def remote_checksum(self) -> bool:
        """Whether the inner checksum is left to the receiver (remote checksum offload)."""
        return bool(self.private & 0x80000000)


Tunnel = Gre | Gue


class TcpFlag(IntFlag):
    """The control bits of a TCP header (RFC 9293, section 3.1)."""

    NONE = 0
    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16
    URG = 32
    ECE = 64
    CWR = 128

    def __str__(self) -> str:
        names = [f.name or "" for f in _FLAGS_SPOKEN if f in self]
        return "-".join(names) or "no flags"


_FLAGS_SPOKEN = (TcpFlag.SYN, TcpFlag.FIN, TcpFlag.RST, TcpFlag.PSH, TcpFlag.URG, TcpFlag.ECE,
                 TcpFlag.CWR, TcpFlag.ACK)  # fmt: skip
"""In the order in which people say them: SYN-ACK, FIN-ACK."""


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP header (RFC 9293). ``mss`` is the SYN's option, 0 where there is none."""

    sport: int
    dport: int
    seq: int
    ack: int
    flags: TcpFlag
    window: int
    mss: int

    @property
    def is_syn(self) -> bool:
        """A connection is asked for: SYN without ACK."""
        return int(self.flags) & 0x12 == 0x02

    @property
    def is_syn_ack(self) -> bool:
        """A connection is accepted."""
        return int(self.flags) & 0x12 == 0x12


@dataclass(frozen=True, slots=True)
class Udp:
    """A UDP header (RFC 768)."""

    sport: int
    dport: int


class SctpChunk(IntEnum):
    """Types of SCTP chunks (RFC 9260, section 3.2)."""

    DATA = 0
    INIT = 1
    INIT_ACK = 2
    SACK = 3
    HEARTBEAT = 4
    HEARTBEAT_ACK = 5
    ABORT = 6
    SHUTDOWN = 7
    SHUTDOWN_ACK = 8
    ERROR = 9
    COOKIE_ECHO = 10
    COOKIE_ACK = 11
    SHUTDOWN_COMPLETE = 14


@dataclass(frozen=True, slots=True)
class Sctp:
    """An SCTP header (RFC 9260) and the type of its first chunk (``SctpChunk``; -1: none)."""

    sport: int
    dport: int
    tag: int
    chunk: int


@dataclass(frozen=True, slots=True)
class Nd:
    """A neighbour solicitation or advertisement (RFC 4861, section 4).

    ``mac`` is the link-layer address option: the sender's in a solicitation, the
    target's in an advertisement; empty where there is none.
    """

    target: IPAddress
    mac: str
    is_solicit: bool
    solicited: bool = False
    override: bool = False


@dataclass(frozen=True, slots=True)
class Icmp:
    """An ICMP (RFC 792) or ICMPv6 (RFC 4443) message.

    ``identifier`` and ``sequence`` belong to an echo. ``mtu`` is the next hop's in
    fragmentation-needed and packet-too-big. ``gateway`` is a redirect's better way.
    ``quoted`` is as much as the message repeats of the packet that it is about.
    """

    version: int
    type: int
    code: int
    identifier: int = 0
    sequence: int = 0
    mtu: int = 0
    gateway: IPAddress | None = None
    nd: Nd | None = None
    quoted: Packet | None = None

    @property
    def name(self) -> str:
        """What the message says, in the words of ICMP's definitions."""
        names = _ICMP_NAMES if self.version == 4 else _ICMPV6_NAMES
        found = names.get((self.type, self.code)) or names.get((self.type, -1))
        return found or f"type {self.type} code {self.code}"

    @property
    def needs_fragmentation(self) -> bool:
        """Fragmentation needed (RFC 1191), or IPv6's packet too big."""
        return (self.type, self.code) == (3, 4) if self.version == 4 else self.type == 2


_ICMP_NAMES = {
    (0, -1): "echo reply",
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed",
    (3, 13): "administratively prohibited",
    (3, -1): "unreachable",
    (5, -1): "redirect",
    (8, -1): "echo request",
    (11, 0): "time exceeded in transit",
    (11, 1): "time exceeded in reassembly",
    (12, -1): "parameter problem",
}
_ICMPV6_NAMES = {
    (1, 0): "no route",
    (1, 1): "administratively prohibited",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (1, -1): "unreachable",
    (2, -1): "packet too big",
    (3, 0): "time exceeded in transit",
    (3, 1): "time exceeded in reassembly",
    (4, 1): "unrecognized next header",
    (4, -1): "parameter problem",
    (128, -1): "echo request",
    (129, -1): "echo reply",
    (133, -1): "router solicitation",
    (134, -1): "router advertisement",
    (135, -1): "neighbour solicitation",
    (136, -1): "neighbour advertisement",
    (137, -1): "redirect",
    (143, -1): "multicast listener report",
}
"""By type and code; -1 stands for every other code."""

Transport = Tcp | Udp | Sctp | Icmp
_NUMBERS = {Tcp: TCP, Udp: UDP, Sctp: SCTP}


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of a conversation. ``protocol`` is the IP protocol number."""

    protocol: int
    src: Endpoint
    dst: Endpoint

    @property
    def reply(self) -> Flow:
        """The other direction."""
        return Flow(self.protocol, self.dst, self.src)

    def __str__(self) -> str:
        return f"{self.src} → {self.dst}"


@dataclass(frozen=True, slots=True)
class Packet:
    """IP and everything in it.

    ``ips`` are the IP headers, the outermost first; ``tunnels`` the GRE and GUE headers
    between them. ``payload`` is what follows the last header that was understood, as far
    as it was captured and without the padding of short Ethernet frames. ``malformed``
    says where decoding stopped and why; empty where all was understood.
    """

    ips: tuple[Ip, ...] = ()
    tunnels: tuple[Tunnel, ...] = ()
    transport: Transport | None = None
    payload: bytes = b""
    malformed: str = ""

    @property
    def flow(self) -> Flow | None:
        """Of the innermost packet; None where it has no ports."""
        transport = self.transport
        if transport is None or isinstance(transport, Icmp) or not self.ips:
            return None
        ip = self.ips[-1]
        src, dst = Endpoint(ip.src, transport.sport), Endpoint(ip.dst, transport.dport)
        return Flow(_NUMBERS[type(transport)], src, dst)

    @property
    def opens_connection(self) -> bool:
        """Whether a client begins with it: a SYN, an INIT, and any datagram of UDP."""
        transport = self.transport
        if isinstance(transport, Tcp):
            return transport.is_syn
        if isinstance(transport, Sctp):
            return transport.chunk == SctpChunk.INIT
        return isinstance(transport, Udp)

    @property
    def accepts_connection(self) -> bool:
        """Whether a server accepts a connection with it: a SYN+ACK or an INIT-ACK."""
        transport = self.transport
        if isinstance(transport, Tcp):
            return transport.is_syn_ack
        return isinstance(transport, Sctp) and transport.chunk == SctpChunk.INIT_ACK

    @property
    def refuses(self) -> bool:
        """Whether it ends a connection at once: a RST or an ABORT."""
        transport = self.transport
        if isinstance(transport, Tcp):
            return bool(transport.flags & TcpFlag.RST)
        return isinstance(transport, Sctp) and transport.chunk == SctpChunk.ABORT

    @property
    def encapsulation(self) -> Encapsulation | None:
        """What the outermost IP header wraps another one in; None where it wraps none."""
        if len(self.ips) < 2:
            return None
        for tunnel in self.tunnels:
            if tunnel.carrier == 0:
                return Encapsulation.GUE if isinstance(tunnel, Gue) else Encapsulation.GRE
        return Encapsulation.IPIP


NO_PACKET = Packet()
"""Of a frame that carries no IP."""

UNSPECIFIED = IPv4Address(0)
