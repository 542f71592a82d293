"""Decode frames: any bytes give a frame, in bounded time and memory.

Not with scapy or dpkt, because every frame of a lab passes through it. Nothing is reassembled and
no checksum but IPv4's header's is verified. Tests compare the results with tshark's and scapy's.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from struct import Struct

from lvsctl.capture.headers import (
    U16,
    Malformed,
    decode_gre,
    decode_gue,
    decode_icmp,
    decode_icmpv6,
    decode_ipv4,
    decode_ipv6,
    decode_sctp,
    decode_tcp,
    decode_udp,
    ipv4_address,
    mac_address,
    need,
)
from lvsctl.model.frame import Arp, Ethernet, Frame, LinkType, RawFrame
from lvsctl.model.packet import (
    GRE,
    ICMP,
    ICMPV6,
    IPIP,
    IPV6,
    NO_PACKET,
    SCTP,
    TCP,
    UDP,
    Ip,
    Packet,
    Transport,
    Tunnel,
)
from lvsctl.model.service import GUE_PORT

GUE_PORTS = frozenset({GUE_PORT})
"""Where datagrams are decoded as GUE if no ports are given."""

MOST_LAYERS = 8
"""The maximum of nested or quoted IP headers that are decoded."""

_ETH_IPV4, _ETH_ARP, _ETH_BRIDGED, _ETH_IPV6 = 0x0800, 0x0806, 0x6558, 0x86DD
_VLANS = frozenset((0x8100, 0x88A8, 0x9100))
_MOST_VLANS = 4
_ARP = Struct(">HHBBH6s4s6s4s").unpack_from
_KINDS = {4: _ETH_IPV4, 6: _ETH_IPV6}
_NO_PROTOCOL = -1


def decode_all(
    raw: Iterable[RawFrame], *, gue_ports: Container[int] = GUE_PORTS
) -> tuple[Frame, ...]:
    """Decode the frames of a capture, numbered from 1 in the order given.

    A frame that was seen at two taps, of its sender and its receiver, is decoded once.
    """
    decoded: dict[tuple[LinkType, int, bytes], Frame] = {}

    def frame(number: int, one: RawFrame) -> Frame:
        key = one.link, one.length, one.data
        same = decoded.get(key)
        if same is not None:
            return Frame(number, one, same.ethernet, same.arp, same.packet)
        decoded[key] = found = decode(one, number, gue_ports=gue_ports)
        return found

    return tuple(frame(number, one) for number, one in enumerate(raw, 1))


def decode(raw: RawFrame, number: int = 1, *, gue_ports: Container[int] = GUE_PORTS) -> Frame:
    """Decode one frame; never raises.

    ``gue_ports`` are the UDP ports whose datagrams are decoded as GUE.
    """
    data = raw.data
    end = len(data)
    whole = raw.length <= end
    ethernet: Ethernet | None = None
    if raw.link is LinkType.RAW:
        kind, at = _kind_of_ip(data, 0, end), 0
    else:
        try:
            ethernet, at = _ethernet(data, 0, end)
        except Malformed as stop:
            return Frame(number, raw, None, None, Packet(payload=data, malformed=str(stop)))
        kind = ethernet.type
    if kind == _ETH_ARP:
        arp, packet = _arp(data, at, end)
        return Frame(number, raw, ethernet, arp, packet)
    if kind in (_ETH_IPV4, _ETH_IPV6):
        packet = _PacketDecoder(data, whole, gue_ports).ip(kind, at, end).packet()
    elif ethernet is None:
        packet = Packet(payload=data, malformed="no IP header")
    else:
        packet = Packet(payload=data[at:])
    return Frame(number, raw, ethernet, None, packet)


def _ethernet(data: bytes, at: int, end: int) -> tuple[Ethernet, int]:
    """Decode the header with its VLAN tags (IEEE 802.1Q); return it and where it ends."""
    need("ethernet", end - at, 14)
    kind = U16(data, at + 12)[0]
    dst, src = mac_address(data[at : at + 6]), mac_address(data[at + 6 : at + 12])
    at += 14
    vlans: tuple[int, ...] = ()
    while kind in _VLANS:
        need("vlan tag", end - at, 4)
        if len(vlans) == _MOST_VLANS:
            raise Malformed(f"more than {_MOST_VLANS} vlan tags")
        vlans += (U16(data, at)[0] & 0xFFF,)
        kind = U16(data, at + 2)[0]
        at += 4
    return Ethernet(dst, src, kind, vlans), at


def _arp(data: bytes, at: int, end: int) -> tuple[Arp | None, Packet]:
    if end - at < 28:
        return None, Packet(malformed=f"arp: {end - at} of 28 bytes")
    hardware, protocol, mac_size, ip_size, op, smac, sip, tmac, tip = _ARP(data, at)
    if (hardware, protocol, mac_size, ip_size) != (1, _ETH_IPV4, 6, 4):
        return None, Packet(malformed="arp: not for IPv4 over Ethernet")
    sender, target = ipv4_address(sip), ipv4_address(tip)
    return Arp(op, mac_address(smac), sender, mac_address(tmac), target), NO_PACKET


def _kind_of_ip(data: bytes, at: int, end: int) -> int:
    """Return the EtherType for the IP version in the first nibble; 0: none."""
    return _KINDS.get(data[at] >> 4, 0) if at < end else 0


class _PacketDecoder:
    """Decodes a packet's headers in one pass, the outermost first."""

    __slots__ = (
        "_data", "_depth", "_end", "_gue_ports", "_ips", "_malformed", "_payload_at", "_transport",
        "_tunnels", "_whole",
    )  # fmt: skip

    def __init__(self, data: bytes, whole: bool, gue_ports: Container[int], depth: int = 0) -> None:
        self._data = data
        self._whole = whole
        self._gue_ports = gue_ports
        self._depth = depth
        self._ips: tuple[Ip, ...] = ()
        self._tunnels: tuple[Tunnel, ...] = ()
        self._transport: Transport | None = None
        self._payload_at = 0
        self._end = len(data)
        self._malformed = ""

    def packet(self) -> Packet:
        """Return what has been decoded."""
        payload = self._data[self._payload_at : self._end]
        return Packet(self._ips, self._tunnels, self._transport, payload, self._malformed)

    def ip(self, kind: int, at: int, end: int) -> _PacketDecoder:
        """Decode from an IP header, whose EtherType is ``kind``, to the end."""
        self._payload_at, self._end = at, end
        try:
            while kind:
                protocol, at, end = self._header(kind, at, end)
                kind, at = self._inside(protocol, at, end)
        except Malformed as stop:
            self._malformed = self._malformed or str(stop)
        return self

    def _header(self, kind: int, at: int, end: int) -> tuple[int, int, int]:
        """Decode an IP header; return its payload's protocol (none in fragments) and place."""
        if self._depth == MOST_LAYERS:
            raise Malformed(f"more than {MOST_LAYERS} IP headers")
        self._depth += 1
        begin = at
        header, at, inner_end = (decode_ipv4 if kind == _ETH_IPV4 else decode_ipv6)(
            self._data, at, end
        )
        self._ips += (header,)
        self._payload_at, self._end = at, inner_end
        if self._whole and header.total_length > end - begin:
            self._malformed = f"ip: total length {header.total_length}, {end - begin} bytes there"
        if header.mf:
            self._whole = False
        if header.fragment_offset:
            return _NO_PROTOCOL, at, inner_end
        return header.protocol, at, inner_end

    def _inside(self, protocol: int, at: int, end: int) -> tuple[int, int]:
        """Decode an IP header's payload; return the EtherType (0: none) of an inner IP header."""
        data = self._data
        carrier = len(self._ips) - 1
        if protocol == TCP:
            self._transport, self._payload_at, wrong = decode_tcp(data, at, end)
        elif protocol == UDP:
            header, end, wrong = decode_udp(data, at, end, self._whole)
            self._transport, self._payload_at, self._end = header, at + 8, end
            if header.dport in self._gue_ports:
                return self._generic(at, end, carrier)
        elif protocol == IPIP:
            return _ETH_IPV4, at
        elif protocol == IPV6:
            return _ETH_IPV6, at
        elif protocol == GRE:
            return self._routed(at, end, carrier)
        elif protocol == ICMP:
            self._transport, self._payload_at, wrong = decode_icmp(data, at, end, self._quoted)
        elif protocol == ICMPV6:
            self._transport, self._payload_at, wrong = decode_icmpv6(data, at, end, self._quoted)
        elif protocol == SCTP:
            self._transport, self._payload_at, wrong = decode_sctp(data, at, end)
        else:
            return 0, at
        self._malformed = self._malformed or wrong
        return 0, at

    def _routed(self, at: int, end: int, carrier: int) -> tuple[int, int]:
        """Decode a GRE header."""
        tunnel, at = decode_gre(self._data, at, end, carrier)
        self._tunnels += (tunnel,)
        self._payload_at = at
        kind = tunnel.protocol
        if kind == _ETH_BRIDGED:
            ethernet, at = _ethernet(self._data, at, end)
            kind = ethernet.type
            self._payload_at = at
        return (kind if kind in (_ETH_IPV4, _ETH_IPV6) else 0), at

    def _generic(self, at: int, end: int, carrier: int) -> tuple[int, int]:
        """Decode a UDP and a GUE header; without a GUE header it stays plain UDP."""
        tunnel, at = decode_gue(self._data, at, end, carrier)
        self._tunnels += (tunnel,)
        self._transport = None
        self._payload_at = at
        if tunnel.protocol == UDP:
            return (
                0,
                at,
            )  # UDP in UDP without an IP header has no meaning, and could nest without end
        return self._inside(tunnel.protocol, at, end)

    def _quoted(self, at: int) -> Packet:
        """Decode the packet that an ICMP error quotes, from ``at`` to the end of the message."""
        kind = _kind_of_ip(self._data, at, self._end)
        if not kind:
            payload = self._data[at : self._end]
            return Packet(payload=payload, malformed="icmp: no IP header quoted")
        decoder = _PacketDecoder(self._data, False, self._gue_ports, self._depth)
        return decoder.ip(kind, at, self._end).packet()
