"""Bytes of a frame that the kernel changed after they had crossed the wire.

A packet socket does not copy a frame when it comes by: it shares the frame's bytes with
whatever the kernel does next, until it is read. Well-behaved code copies before it writes.
One does not: where GUE or FOU is taken off, the outer IPv4 header's total length is
lowered in place (net/ipv4/fou_core.c, fou_recv_pull and gue_udp_recv), and every tap since the
last router shows 12 bytes too few. Seen with 6.1; tcpdump, whose ring copies at once, shows
them all.
"""

from __future__ import annotations

from lvsctl.capture.reading import U16

_ETHERNET = 14
_IPV4, _UDP = b"\x08\x00", 17
_NO_OPTIONS = 0x45  # IPv4 with a header of 20 bytes


def as_on_the_wire(data: bytes, length: int) -> bytes:
    """An Ethernet frame of ``length`` bytes with the total length that it had on the wire.

    The header's checksum is still that of the wire and decides: only a length that the
    checksum confirms is put back. Everything else is returned as it is.
    """
    if len(data) < _ETHERNET + 20 or data[14] != _NO_OPTIONS or data[23] != _UDP:
        return data
    wire = length - _ETHERNET
    if data[12:14] != _IPV4 or U16(data, 16)[0] == wire or wire > 0xFFFF or wire < 28:
        return data
    restored = data[:16] + wire.to_bytes(2, "big") + data[18:]
    if _sum(data) == 0xFFFF or _sum(restored) != 0xFFFF:
        return data
    return restored


def _sum(data: bytes) -> int:
    """The ones' complement sum of the IPv4 header: 0xffff where its checksum is right."""
    total = sum(int(U16(data, at)[0]) for at in range(_ETHERNET, _ETHERNET + 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)
