"""ICMP and ICMPv6 messages out of bytes, with neighbour discovery and quoted packets."""

from __future__ import annotations

from collections.abc import Callable

from lvsctl.capture.reading import (
    PORTS,
    U16,
    U32,
    Malformed,
    ipv4_address,
    ipv6_address,
    mac_address,
    need,
)
from lvsctl.model.packet import Icmp, Nd, Packet

Quote = Callable[[int], Packet]
"""Decodes the packet that begins at an offset and ends with the message."""

_ECHO = frozenset((0, 8))
_ERRORS = frozenset((3, 4, 5, 11, 12))  # unreachable, source quench, redirect, time, parameter
_REDIRECT = 5
_ECHO6 = frozenset((128, 129))
_ERRORS6 = frozenset((1, 2, 3, 4))  # unreachable, too big, time exceeded, parameter problem
_SOLICITATION, _ADVERTISEMENT, _REDIRECT6 = 135, 136, 137
_SOURCE_MAC, _TARGET_MAC = 1, 2


def icmp(data: bytes, at: int, end: int, quote: Quote) -> tuple[Icmp, int, str]:
    """The message at ``at`` (RFC 792), where its payload begins, and what is wrong with it.

    Raises Malformed where there is no header.
    """
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


def icmpv6(data: bytes, at: int, end: int, quote: Quote) -> tuple[Icmp, int, str]:
    """The same for ICMPv6 (RFC 4443), with neighbour discovery (RFC 4861)."""
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
    """The link-layer address among ND options (RFC 4861, section 4.6), and what is wrong."""
    at = 0
    while at < len(options):
        length = options[at + 1] * 8 if at + 1 < len(options) else 0
        if not length or at + length > len(options):
            return "", f"nd: option {options[at]} with length {length}"
        if options[at] == wanted and length == 8:
            return mac_address(options[at + 2 : at + 8]), ""
        at += length
    return "", ""
