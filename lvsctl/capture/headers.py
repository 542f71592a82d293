"""Decode one header of a packet: IPv4, IPv6, TCP, UDP, SCTP, ICMP, GRE or GUE.

Each function returns the header and where what follows it begins; never beyond the ``end`` that
it was given. Each raises Malformed if there is no such header. Those of transport protocols and
ICMP also return what is wrong with a header that could be read, or an empty text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from struct import Struct

from lvsctl.model.packet import IPIP, IPV6, Gre, Gue, Icmp, Ip, Nd, Packet, Sctp, Tcp, TcpFlag, Udp


class Malformed(Exception):
    """Decoding cannot continue; the text says where and why. ``decode`` catches it."""


U16 = Struct(">H").unpack_from
U32 = Struct(">I").unpack_from
PORTS = Struct(">HH").unpack_from


def need(what: str, available: int, needed: int) -> None:
    """Raise Malformed if a header is cut off."""
    if available < needed:
        raise Malformed(f"{what}: {max(available, 0)} of {needed} bytes")


# A capture repeats few addresses, and creating an IPv4Address takes longer than decoding the rest
# of a frame. The caches are bounded, because a hostile capture repeats none.
@lru_cache(maxsize=4096)
def ipv4_address(packed: bytes) -> IPv4Address:
    """Return the IPv4 address that four bytes encode."""
    return IPv4Address(packed)


@lru_cache(maxsize=4096)
def ipv6_address(packed: bytes) -> IPv6Address:
    """Return the IPv6 address that sixteen bytes encode."""
    return IPv6Address(packed)


@lru_cache(maxsize=4096)
def mac_address(packed: bytes) -> str:
    """Return the MAC address that six bytes encode, such as ``02:00:0a:0a:00:0b``."""
    return packed.hex(":")


_IPV4 = Struct(">BBHHHBBH4s4s").unpack_from
_IPV6 = Struct(">IHBB16s16s").unpack_from

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_MOBILITY, _HOST_IDENTITY, _SHIM = 135, 139, 140
_EXTENSIONS = frozenset(
    (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION, _MOBILITY, _HOST_IDENTITY,
     _SHIM)
)  # fmt: skip
"""IPv6 extension headers that can be skipped (IANA); ESP (50) encrypts what follows."""
_MOST_EXTENSIONS = 16


def decode_ipv4(data: bytes, at: int, end: int) -> tuple[Ip, int, int]:
    """Decode the IPv4 header at ``at`` (RFC 791); also return where its payload ends."""
    need("ipv4", end - at, 20)
    first, tos, total, identification, fragment, ttl, protocol, _, src, dst = _IPV4(data, at)
    length = (first & 15) * 4
    if first >> 4 != 4:
        raise Malformed(f"ipv4: version {first >> 4}")
    if length < 20:
        raise Malformed(f"ipv4: header length {length}")
    need("ipv4 options", end - at, length)
    if total == 0:  # a packet over 64 KiB on its way through the kernel (BIG TCP)
        total = end - at
    elif total < length:
        raise Malformed(f"ipv4: total length {total} is less than its header")
    # RFC 1071: the sum of a header with a right checksum is a multiple of 0xffff.
    checksum_ok = int.from_bytes(data[at : at + length], "big") % 0xFFFF == 0
    header = Ip(
        4, ipv4_address(src), ipv4_address(dst), ttl, protocol, identification,
        bool(fragment & 0x4000), bool(fragment & 0x2000), (fragment & 0x1FFF) * 8,
        total, length, tos, 0, checksum_ok, at,
    )  # fmt: skip
    return header, at + length, min(end, at + total)


def decode_ipv6(data: bytes, at: int, end: int) -> tuple[Ip, int, int]:
    """Decode the IPv6 header at ``at`` (RFC 8200) with its extension headers."""
    need("ipv6", end - at, 40)
    first, payload, protocol, hops, src, dst = _IPV6(data, at)
    if first >> 28 != 6:
        raise Malformed(f"ipv6: version {first >> 28}")
    # 0 with hop-by-hop options: a jumbogram (RFC 2675); its length is the frame's.
    total = 40 + payload if payload or protocol != _HOP_BY_HOP else end - at
    start = at + 40
    end = min(end, at + total)
    identification = offset = 0
    more = False
    if protocol in _EXTENSIONS:
        protocol, start, fragment, identification = _extensions(data, protocol, start, end)
        offset, more = fragment & 0xFFF8, bool(fragment & 1)
    header = Ip(
        6, ipv6_address(src), ipv6_address(dst), hops, protocol, identification,
        False, more, offset, total, start - at, first >> 20 & 0xFF, first & 0xFFFFF, True, at,
    )  # fmt: skip
    return header, start, end


def _extensions(data: bytes, protocol: int, at: int, end: int) -> tuple[int, int, int, int]:
    """Return the protocol after the extension headers, its place, and the fragment's fields."""
    fragment = identification = 0
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in _EXTENSIONS:
            return protocol, at, fragment, identification
        need("ipv6 extension header", end - at, 8)
        following, length = data[at], (data[at + 1] + 1) * 8
        if protocol == _FRAGMENT:
            length = 8
            fragment = U16(data, at + 2)[0]
            identification = int.from_bytes(data[at + 4 : at + 8], "big")
        elif protocol == _AUTHENTICATION:
            length = (data[at + 1] + 2) * 4  # RFC 4302, section 2.2
        need("ipv6 extension header", end - at, length)
        at += length
        protocol = following
        if fragment & 0xFFF8:  # a later fragment: no header follows
            return protocol, at, fragment, identification
    raise Malformed(f"ipv6: more than {_MOST_EXTENSIONS} extension headers")


_TCP = Struct(">HHIIHH").unpack_from
_FLAGS = tuple(TcpFlag(bits) for bits in range(256))
_OPTION_END, _OPTION_NOTHING, _OPTION_MSS = 0, 1, 2


def decode_tcp(data: bytes, at: int, end: int) -> tuple[Tcp, int, str]:
    """Decode the TCP header at ``at`` (RFC 9293).

    One that is cut off after eight bytes, as quoted in an old router's ICMP message (RFC 792), has
    only its ports and sequence number.
    """
    available = end - at
    if available < 20:
        need("tcp", available, 8)
        sport, dport = PORTS(data, at)
        header = Tcp(sport, dport, U32(data, at + 4)[0], 0, TcpFlag.NONE, 0, 0)
        return header, end, f"tcp: {available} of 20 bytes"
    sport, dport, seq, ack, bits, window = _TCP(data, at)
    length = bits >> 12 << 2
    wrong = ""
    mss = 0
    if length < 20:
        wrong = f"tcp: header length {length}"
        length = 20
    elif length > available:
        wrong = f"tcp options: {available} of {length} bytes"
        length = available
    elif bits & TcpFlag.SYN.value and length > 20:
        mss, wrong = _mss(data[at + 20 : at + length])
    return Tcp(sport, dport, seq, ack, _FLAGS[bits & 0xFF], window, mss), at + length, wrong


def _mss(options: bytes) -> tuple[int, str]:
    """Return the maximum segment size in a SYN's options (0: none), and what is wrong with them."""
    at = mss = 0
    while at < len(options) and options[at] != _OPTION_END:
        if options[at] == _OPTION_NOTHING:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            return mss, f"tcp: option {options[at]} with length {length}"
        if options[at] == _OPTION_MSS and length == 4:
            mss = U16(options, at + 2)[0]
        at += length
    return mss, ""


def decode_udp(data: bytes, at: int, end: int, whole: bool) -> tuple[Udp, int, str]:
    """Decode the UDP header at ``at`` (RFC 768); also return where its payload ends.

    ``whole`` means that the datagram was neither fragmented nor cut when captured.
    """
    need("udp", end - at, 8)
    sport, dport = PORTS(data, at)
    length = U16(data, at + 4)[0]
    wrong = ""
    if 0 < length < 8:  # 0: a jumbogram (RFC 2675, section 4)
        wrong = f"udp: length {length}"
    elif length > end - at:
        wrong = f"udp: length {length}, {end - at} bytes there" if whole else ""
    elif length:
        end = at + length
    return Udp(sport, dport), end, wrong


def decode_sctp(data: bytes, at: int, end: int) -> tuple[Sctp, int, str]:
    """Decode the SCTP header at ``at`` (RFC 9260); the payload is all its chunks."""
    available = end - at
    need("sctp", available, 8)
    sport, dport = PORTS(data, at)
    wrong = f"sctp: {available} of 12 bytes" if available < 12 else ""
    chunk = data[at + 12] if available > 12 else -1
    return Sctp(sport, dport, U32(data, at + 4)[0], chunk), min(at + 12, end), wrong


_GRE_CHECKSUM, _GRE_ROUTING, _GRE_KEY, _GRE_SEQUENCE, _GRE_VERSION = (
    0x8000, 0x4000, 0x2000, 0x1000, 0x0007,
)  # fmt: skip
_GUE_PRIVATE = 0x0001  # net/gue.h: GUE_FLAG_PRIV


def decode_gre(data: bytes, at: int, end: int, carrier: int) -> tuple[Gre, int]:
    """Decode the GRE header at ``at`` (RFC 2784, RFC 2890)."""
    need("gre", end - at, 4)
    flags, protocol = PORTS(data, at)
    if flags & _GRE_VERSION:
        raise Malformed(f"gre: version {flags & _GRE_VERSION}")
    if flags & _GRE_ROUTING:
        raise Malformed("gre: source routing (RFC 1701)")
    has_key, has_sequence = bool(flags & _GRE_KEY), bool(flags & _GRE_SEQUENCE)
    has_checksum = bool(flags & _GRE_CHECKSUM)
    need("gre", end - at, 4 + 4 * (has_checksum + has_key + has_sequence))
    at += 8 if has_checksum else 4
    key = sequence = None
    if has_key:
        key = U32(data, at)[0]
        at += 4
    if has_sequence:
        sequence = U32(data, at)[0]
        at += 4
    return Gre(protocol, key, sequence, has_checksum, carrier), at


def decode_gue(data: bytes, at: int, end: int, carrier: int) -> tuple[Gue, int]:
    """Decode the UDP and GUE headers at ``at``. At least eight bytes must follow.
    The draft
       (draft-ietf-intarea-gue-09) and Linux (net/ipv4/fou_core.c) agree on all of this.
    """
    sport, dport = PORTS(data, at)
    checksum = U16(data, at + 6)[0] != 0
    at += 8
    need("gue", end - at, 1)
    first = data[at]
    if first >> 6 == 1:  # variant 1: these are the first bits of an IP version, 4 or 6
        protocols = {4: IPIP, 6: IPV6}
        if first >> 4 not in protocols:
            raise Malformed(f"gue: variant 1 with IP version {first >> 4}")
        return Gue(sport, dport, 1, protocols[first >> 4], 0, 0, carrier, checksum), at
    if first >> 6:
        raise Malformed(f"gue: variant {first >> 6}")
    need("gue", end - at, 4)
    if first & 0x20:
        raise Malformed("gue: a control message")
    length = 4 + (first & 0x1F) * 4
    need("gue", end - at, length)
    flags = U16(data, at + 2)[0]
    private = 0
    if flags & _GUE_PRIVATE:
        need("gue private flags", length, 8)
        private = U32(data, at + 4)[0]
    return Gue(sport, dport, 0, data[at + 1], flags, private, carrier, checksum), at + length


Quote = Callable[[int], Packet]
"""Decodes the packet that begins at an offset and ends with the message."""

_ECHO = frozenset((0, 8))
_ERRORS = frozenset((3, 4, 5, 11, 12))  # unreachable, source quench, redirect, time, parameter
_REDIRECT = 5
_ECHO6 = frozenset((128, 129))
_ERRORS6 = frozenset((1, 2, 3, 4))  # unreachable, too big, time exceeded, parameter problem
_SOLICITATION, _ADVERTISEMENT, _REDIRECT6 = 135, 136, 137
_SOURCE_MAC, _TARGET_MAC = 1, 2


def decode_icmp(data: bytes, at: int, end: int, quote: Quote) -> tuple[Icmp, int, str]:
    """Decode the ICMP message at ``at`` (RFC 792)."""
    need("icmp", end - at, 8)
    kind, code = data[at], data[at + 1]
    if kind in _ECHO:
        identifier, sequence = PORTS(data, at + 4)
        return Icmp(4, kind, code, identifier, sequence), at + 8, ""
    if kind not in _ERRORS:
        return Icmp(4, kind, code), at + 8, ""
    message = Icmp(
        4,
        kind,
        code,
        mtu=U16(data, at + 6)[0] if (kind, code) == (3, 4) else 0,  # RFC 1191, section 4
        gateway=ipv4_address(data[at + 4 : at + 8]) if kind == _REDIRECT else None,
        quoted=quote(at + 8),
    )
    return message, at + 8, ""


def decode_icmpv6(data: bytes, at: int, end: int, quote: Quote) -> tuple[Icmp, int, str]:
    """Decode the ICMPv6 message at ``at`` (RFC 4443), with neighbour discovery (RFC 4861)."""
    need("icmpv6", end - at, 8)
    kind, code = data[at], data[at + 1]
    if kind in _ECHO6:
        identifier, sequence = PORTS(data, at + 4)
        return Icmp(6, kind, code, identifier, sequence), at + 8, ""
    if kind in _ERRORS6:
        mtu = U32(data, at + 4)[0] if kind == 2 else 0
        return Icmp(6, kind, code, mtu=mtu, quoted=quote(at + 8)), at + 8, ""
    try:
        if kind in (_SOLICITATION, _ADVERTISEMENT):
            nd, wrong = _neighbour(data, at, end)
            return Icmp(6, kind, code, nd=nd), end, wrong
        if kind == _REDIRECT6:
            need("nd redirect", end - at, 40)
            return Icmp(6, kind, code, gateway=ipv6_address(data[at + 8 : at + 24])), end, ""
    except Malformed as stop:
        return Icmp(6, kind, code), at + 8, str(stop)
    return Icmp(6, kind, code), at + 8, ""


def _neighbour(data: bytes, at: int, end: int) -> tuple[Nd, str]:
    need("nd", end - at, 24)
    solicit = data[at] == _SOLICITATION
    mac, wrong = _mac_option(data[at + 24 : end], _SOURCE_MAC if solicit else _TARGET_MAC)
    bits = 0 if solicit else data[at + 4]
    target = ipv6_address(data[at + 8 : at + 24])
    return Nd(target, mac, solicit, bool(bits & 0x40), bool(bits & 0x20)), wrong


def _mac_option(options: bytes, wanted: int) -> tuple[str, str]:
    """Return the MAC address in ND options (RFC 4861, section 4.6), and what is wrong with them."""
    at = 0
    while at < len(options):
        length = options[at + 1] * 8 if at + 1 < len(options) else 0
        if not length or at + length > len(options):
            return "", f"nd: option {options[at]} with length {length}"
        if options[at] == wanted and length == 8:
            return mac_address(options[at + 2 : at + 8]), ""
        at += length
    return "", ""
