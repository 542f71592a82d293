"""IPv4 (RFC 791) and IPv6 (RFC 8200) headers out of bytes.

Each function returns the header, where what it carries begins, and where that ends:
never beyond the end that it was given. Each raises Malformed where there is no header.
"""

from __future__ import annotations

from struct import Struct

from lvsctl.capture.reading import U16, Malformed, ipv4_address, ipv6_address, need
from lvsctl.model.packet import Ip

_IPV4 = Struct(">BBHHHBBH4s4s").unpack_from
_IPV6 = Struct(">IHBB16s16s").unpack_from

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_MOBILITY, _HOST_IDENTITY, _SHIM = 135, 139, 140
_EXTENSIONS = frozenset(
    (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION, _MOBILITY, _HOST_IDENTITY,
     _SHIM)
)  # fmt: skip
"""IPv6 extension headers that can be stepped over (IANA); ESP (50) hides what follows."""
_MOST_EXTENSIONS = 16


def ipv4(data: bytes, at: int, end: int) -> tuple[Ip, int, int]:
    """The IPv4 header at ``at``."""
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


def ipv6(data: bytes, at: int, end: int) -> tuple[Ip, int, int]:
    """The IPv6 header at ``at`` with its extension headers."""
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
    """What follows the extension headers, where, and the fragment header's two fields."""
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
        if fragment & 0xFFF8:  # a later fragment: what follows is from the middle of something
            return protocol, at, fragment, identification
    raise Malformed(f"ipv6: more than {_MOST_EXTENSIONS} extension headers")
