"""Captured frames: where and when each was seen, its bytes, and its headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from ipaddress import IPv4Address

from lvsctl.model import dns, sip
from lvsctl.model.addresses import IPAddress
from lvsctl.model.packet import (
    GRE,
    IPIP,
    IPV6,
    SCTP,
    TCP,
    UDP,
    Flow,
    Gre,
    Gue,
    Icmp,
    Ip,
    Nd,
    Packet,
    Sctp,
    SctpChunk,
    Tcp,
    Udp,
)


@dataclass(frozen=True, slots=True, order=True)
class Tap:
    """A point where frames are captured: an interface of a node, written ``director:lan``."""

    node: str
    device: str

    def __str__(self) -> str:
        return f"{self.node}:{self.device}" if self.node else self.device

    @classmethod
    def parse(cls, text: str) -> Tap:
        """The tap written ``node:device``; a device's name has no colon (dev_valid_name)."""
        node, _, device = text.rpartition(":")
        return cls(node, device)


class Direction(Enum):
    """Which way a frame went at its tap, from the point of view of the tap's node.

    The values are packet(7)'s packet types; UNKNOWN is for files that do not say.
    """

    IN = 0
    BROADCAST = 1
    MULTICAST = 2
    OTHER = 3
    """To another host's MAC address: heard only by an interface in promiscuous mode."""
    OUT = 4
    UNKNOWN = -1

    @property
    def inward(self) -> bool:
        """Whether it came in, to whomever it was addressed."""
        return self not in (Direction.OUT, Direction.UNKNOWN)


class LinkType(IntEnum):
    """How a frame begins (https://www.tcpdump.org/linktypes.html)."""

    ETHERNET = 1
    RAW = 101
    """With an IP header: tunnel devices. A gre device's frames begin with the outer one."""


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A frame as captured, not yet decoded.

    ``time`` is the kernel's timestamp in whole nanoseconds since the epoch
    (CLOCK_REALTIME): a float would lose the order of frames less than 0.2 µs apart.
    ``length`` is its length on the wire in bytes; ``data`` may be less of it (snaplen).
    ``checksum_pending``: the kernel left the transport checksum to a device that never
    computes it, so that a wrong one in these bytes means nothing.
    """

    time: int
    tap: Tap
    direction: Direction
    link: LinkType
    length: int
    data: bytes
    checksum_pending: bool = False


@dataclass(frozen=True, slots=True)
class Ethernet:
    """An Ethernet header. ``type`` is the EtherType behind any VLAN tags.

    Below 0x600 it is a length (IEEE 802.3). ``vlans`` are VLAN ids, outermost first.
    """

    dst: str
    src: str
    type: int
    vlans: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.src} → {self.dst}"


@dataclass(frozen=True, slots=True)
class Arp:
    """ARP for IPv4 over Ethernet (RFC 826)."""

    op: int
    sender_mac: str
    sender_ip: IPv4Address
    target_mac: str
    target_ip: IPv4Address

    @property
    def is_request(self) -> bool:
        """Who has ``target_ip``?"""
        return self.op == 1

    @property
    def is_reply(self) -> bool:
        """``sender_ip`` is at ``sender_mac``."""
        return self.op == 2

    @property
    def is_gratuitous(self) -> bool:
        """An announcement of the sender's own address (RFC 5227, section 3)."""
        return self.sender_ip == self.target_ip


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame at one tap, decoded.

    ``number`` counts from 1 within the capture, in time order: it is the frame's number
    in the pcapng file too. ``ethernet`` is None at a tunnel device; ``arp`` where it is
    not ARP; ``packet`` has no IP headers where it is not IP.
    """

    number: int
    raw: RawFrame
    ethernet: Ethernet | None
    arp: Arp | None
    packet: Packet

    @property
    def time(self) -> int:
        """Whole nanoseconds since the epoch, by the kernel's CLOCK_REALTIME."""
        return self.raw.time

    @property
    def tap(self) -> Tap:
        """Where it was seen."""
        return self.raw.tap

    @property
    def direction(self) -> Direction:
        """Which way it went there."""
        return self.raw.direction

    @property
    def length(self) -> int:
        """Bytes on the wire."""
        return self.raw.length

    @property
    def ips(self) -> tuple[Ip, ...]:
        """The IP headers, outermost first."""
        return self.packet.ips

    @property
    def outer(self) -> Ip | None:
        """The outermost IP header."""
        return self.packet.ips[0] if self.packet.ips else None

    @property
    def inner(self) -> Ip | None:
        """The innermost IP header: the only one where nothing is encapsulated."""
        return self.packet.ips[-1] if self.packet.ips else None

    @property
    def tcp(self) -> Tcp | None:
        """The innermost packet's TCP header."""
        transport = self.packet.transport
        return transport if isinstance(transport, Tcp) else None

    @property
    def sctp(self) -> Sctp | None:
        """The innermost packet's SCTP header."""
        transport = self.packet.transport
        return transport if isinstance(transport, Sctp) else None

    @property
    def udp(self) -> Udp | None:
        """The innermost packet's UDP header."""
        transport = self.packet.transport
        return transport if isinstance(transport, Udp) else None

    @property
    def icmp(self) -> Icmp | None:
        """The innermost packet's ICMP or ICMPv6 message."""
        transport = self.packet.transport
        return transport if isinstance(transport, Icmp) else None

    @property
    def nd(self) -> Nd | None:
        """The neighbour solicitation or advertisement; None where it is none."""
        return self.icmp.nd if self.icmp is not None else None

    @property
    def asks_for(self) -> IPAddress | None:
        """The address that an ARP request or neighbour solicitation asks for."""
        if self.arp is not None:
            return self.arp.target_ip if self.arp.is_request else None
        return self.nd.target if self.nd is not None and self.nd.is_solicit else None

    @property
    def asked_from(self) -> IPAddress | None:
        """The address that an ARP request or neighbour solicitation is sent from."""
        if self.asks_for is None:
            return None
        if self.arp is not None:
            return self.arp.sender_ip
        return self.outer.src if self.outer is not None else None

    @property
    def answers_for(self) -> IPAddress | None:
        """The address that an ARP reply or neighbour advertisement gives a MAC address for."""
        if self.arp is not None:
            return self.arp.sender_ip if self.arp.is_reply else None
        return self.nd.target if self.nd is not None and not self.nd.is_solicit else None

    @property
    def flow(self) -> Flow | None:
        """Of the innermost packet; None where it has no ports."""
        return self.packet.flow

    @property
    def payload(self) -> bytes:
        """What follows the last header understood; see ``Packet``."""
        return self.packet.payload

    @property
    def malformed(self) -> str:
        """Where decoding stopped and why; empty where all was understood."""
        return self.packet.malformed

    def summary(self) -> str:
        """One line for people, as tcpdump would say it."""
        return summary_of(self)

    def __str__(self) -> str:
        return f"{self.tap} #{self.number}  {self.summary()}"


@dataclass(frozen=True, slots=True)
class Recording:
    """A capture that is over, or one read from a file.

    ``taps`` are those that were listened at, silent ones too. ``frames`` are in time
    order. ``drops`` counts, by node, the frames that the kernel could not hand over: no
    claim is decided on a recording with drops. ``comments`` are by frame number, from 1.
    """

    taps: Mapping[Tap, LinkType]
    frames: tuple[RawFrame, ...]
    drops: Mapping[str, int] = field(default_factory=dict)
    comments: Mapping[int, str] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        """How many frames are missing in all."""
        return sum(self.drops.values())


VRRP = 112
"""The IP protocol's number (RFC 5798, section 5.1.1.4)."""

_PROTOCOL_NAMES = {
    IPIP: "IPIP", TCP: "TCP", UDP: "UDP", IPV6: "IPv6", GRE: "GRE", 50: "ESP", VRRP: "VRRP",
    SCTP: "SCTP",
}  # fmt: skip


def chunk_name(chunk: int) -> str:
    """Return the name of an SCTP chunk's type, such as ``INIT-ACK``."""
    try:
        return SctpChunk(chunk).name.replace("_", "-")
    except ValueError:
        return f"chunk {chunk}"


def summary_of(frame: Frame) -> str:
    """``10.10.0.10:45678 → 10.10.0.100:80 TCP SYN ttl 64 | 02:00:… → 02:00:…``.

    What is encapsulated stands in brackets behind the header that carries it.
    """
    ethernet = frame.ethernet
    if frame.arp is not None:
        text = _arp(frame.arp)
    elif frame.ips:
        text = packet_summary(frame.packet)
    elif ethernet is None:
        text = f"{frame.length} bytes"
    else:
        text = f"type {ethernet.type:#06x}" if ethernet.type >= 0x600 else "802.3"
    if frame.malformed and not frame.ips:
        text += f" (malformed: {frame.malformed})"
    return f"{text} | {ethernet}" if ethernet is not None else text


def packet_summary(packet: Packet) -> str:
    """The same of a packet, with no MAC addresses: of one quoted by ICMP, for example."""
    if not packet.ips:
        return f"not IP (malformed: {packet.malformed})" if packet.malformed else "not IP"
    *carriers, inner = packet.ips
    text = ""
    for index, carrier in enumerate(carriers):
        text += f"{carrier} {_wrapping(packet, index)}["
    text += _innermost(packet, inner) + "]" * len(carriers)
    if packet.malformed:
        text += f" (malformed: {packet.malformed})"
    return text


def _wrapping(packet: Packet, index: int) -> str:
    words = ""
    for tunnel in packet.tunnels:
        if tunnel.carrier != index:
            continue
        if isinstance(tunnel, Gue):
            words += f"GUE {tunnel.sport} → {tunnel.dport} "
        else:
            words += "GRE " if tunnel.key is None else f"GRE key {tunnel.key} "
    protocol = packet.ips[index].protocol
    return words or f"{_PROTOCOL_NAMES.get(protocol, f'protocol {protocol}')} "


def _innermost(packet: Packet, ip: Ip) -> str:
    transport, flow = packet.transport, packet.flow
    tail = f"{ip.ttl_name.lower()} {ip.ttl}" + _fragment(ip)
    if isinstance(transport, Icmp):
        kind = "ICMP" if transport.version == 4 else "ICMPv6"
        return f"{ip.src} → {ip.dst} {kind} {_icmp(transport)} {tail}"
    if flow is None or transport is None:
        protocol = _PROTOCOL_NAMES.get(ip.protocol, f"protocol {ip.protocol}")
        if any(isinstance(t, Gre) for t in packet.tunnels):
            protocol = f"GRE type {packet.tunnels[-1].protocol:#06x}"
        elif ip.protocol == VRRP and len(packet.payload) >= 3:
            # RFC 5798, section 5.1
            protocol += f" router id {packet.payload[1]} priority {packet.payload[2]}"
        return f"{ip.src} → {ip.dst} {protocol} {tail}"
    if isinstance(transport, Tcp):
        what = f"TCP {transport.flags}"
    else:
        what = _PROTOCOL_NAMES[flow.protocol]
        chunk = getattr(transport, "chunk", -1)
        what += f" {chunk_name(chunk)}" if chunk >= 0 else ""
    if isinstance(transport, Udp) and dns.PORT in (transport.sport, transport.dport):
        said = dns.summary(packet.payload)
        what += f" {said}" if said else ""
    elif isinstance(transport, Udp) and (said := sip.summary(packet.payload)):
        what += f" {said}"
    size = f" {len(packet.payload)} bytes" if packet.payload and flow.protocol != SCTP else ""
    return f"{flow} {what}{size} {tail}"


def _fragment(ip: Ip) -> str:
    if not ip.is_fragment:
        return ""
    return f" fragment {ip.identification:#x} at {ip.fragment_offset}{'+' if ip.mf else ''}"


def _icmp(message: Icmp) -> str:
    text = message.name
    if message.nd is not None:
        nd = message.nd
        text += f" who has {nd.target}" if nd.is_solicit else f" {nd.target}"
        text += f" is at {nd.mac}" if nd.mac and not nd.is_solicit else ""
    if message.mtu:
        text += f" mtu {message.mtu}"
    if message.gateway is not None:
        text += f" to {message.gateway}"
    quoted = message.quoted
    if quoted is not None and len(quoted.ips) > 1:
        text += f" about ({packet_summary(quoted)})"
    elif quoted is not None and quoted.ips:
        text += f" about {quoted.flow or quoted.ips[0]}"
    return text


def _arp(arp: Arp) -> str:
    if arp.is_request:
        if arp.is_gratuitous:
            return f"ARP announces {arp.sender_ip} at {arp.sender_mac}"
        return f"ARP who has {arp.target_ip}? tell {arp.sender_ip}"
    if arp.is_reply:
        return f"ARP {arp.sender_ip} is at {arp.sender_mac}"
    return f"ARP op {arp.op}"
