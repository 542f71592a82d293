"""What the decoders share: addresses read once, and a way to stop."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from struct import Struct


class Malformed(Exception):
    """Decoding cannot go on; the text says where and why. It never leaves ``decode``."""


U16 = Struct(">H").unpack_from
U32 = Struct(">I").unpack_from
PORTS = Struct(">HH").unpack_from


def need(what: str, available: int, needed: int) -> None:
    """Raise Malformed where a header is cut off."""
    if available < needed:
        raise Malformed(f"{what}: {max(available, 0)} of {needed} bytes")


# A capture repeats few addresses, and making an IPv4Address costs more than all else
# about a frame; bounded, because a hostile capture repeats none.
@lru_cache(maxsize=4096)
def ipv4_address(packed: bytes) -> IPv4Address:
    """The address of four bytes."""
    return IPv4Address(packed)


@lru_cache(maxsize=4096)
def ipv6_address(packed: bytes) -> IPv6Address:
    """The address of sixteen bytes."""
    return IPv6Address(packed)


@lru_cache(maxsize=4096)
def mac_address(packed: bytes) -> str:
    """``02:00:0a:0a:00:0b`` of six bytes."""
    return packed.hex(":")
