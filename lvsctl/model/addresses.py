"""Names for the standard library's address types, and the few facts derived from them."""

from __future__ import annotations

import functools
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
)

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network


@functools.lru_cache(64)  # a VIP is asked for by each of its real servers
def host_route(address: IPAddress) -> IPInterface:
    """``address`` with a full-length prefix: how a VIP is added to a device."""
    return ip_interface(f"{address}/{address.max_prefixlen}")


def mac_for(address: IPAddress) -> str:
    """The MAC address of the interface that holds ``address`` first.

    Locally administered (RFC 7042, section 2.1), and for IPv4 it spells the
    address, so that 02:00:0a:0a:00:0b in a capture reads as 10.10.0.11.
    """
    if isinstance(address, IPv4Address):
        tail = address.packed
    else:
        import hashlib

        tail = hashlib.sha256(address.packed).digest()[:4]
    return (b"\x02\x00" + tail).hex(":")
