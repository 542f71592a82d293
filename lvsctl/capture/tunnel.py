"""GRE and GUE headers out of bytes: what an encapsulation puts between two IP headers."""

from __future__ import annotations

from lvsctl.capture.reading import PORTS, U16, U32, Malformed, need
from lvsctl.model.packet import IPIP, IPV6, Gre, Gue

_GRE_CHECKSUM, _GRE_ROUTING, _GRE_KEY, _GRE_SEQUENCE, _GRE_VERSION = (
    0x8000, 0x4000, 0x2000, 0x1000, 0x0007,
)  # fmt: skip
_GUE_PRIVATE = 0x0001  # net/gue.h: GUE_FLAG_PRIV


def gre(data: bytes, at: int, end: int, carrier: int) -> tuple[Gre, int]:
    """The GRE header at ``at`` (RFC 2784, RFC 2890), and where it ends. Raises Malformed."""
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


def gue(data: bytes, at: int, end: int, carrier: int) -> tuple[Gue, int]:
    """The UDP and GUE headers at ``at``, and where they end. Raises Malformed.

    The caller has seen that eight bytes are there. The draft
    (draft-ietf-intarea-gue-09) and Linux (net/ipv4/fou_core.c) agree on all of this.
    """
    sport, dport = PORTS(data, at)
    at += 8
    need("gue", end - at, 1)
    first = data[at]
    if first >> 6 == 1:  # variant 1: these are the first bits of an IP version, 4 or 6
        protocols = {4: IPIP, 6: IPV6}
        if first >> 4 not in protocols:
            raise Malformed(f"gue: variant 1 with IP version {first >> 4}")
        return Gue(sport, dport, 1, protocols[first >> 4], 0, 0, carrier), at
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
    return Gue(sport, dport, 0, data[at + 1], flags, private, carrier), at + length
