"""Names for the standard library's address types, and the few facts derived from them."""

from __future__ import annotations

import functools
import hashlib
import socket
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
)
from typing import NamedTuple

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network


class Endpoint(NamedTuple):
    """An address and a port: one end of a conversation."""

    address: IPAddress
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


class IpFamily(StrEnum):
    """An IP version, as topology files name it."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def version(self) -> int:
        """The IP version's number."""
        return 4 if self is IpFamily.IPV4 else 6

    @property
    def name_in_text(self) -> str:
        """How it is written in sentences."""
        return f"IPv{self.version}"


class AddressFamily(NamedTuple):
    """What differs between IPv4 and IPv6 for LVS.

    ``name`` is IPv4 or IPv6, ``number`` is AF_INET or AF_INET6, ``neighbours`` the protocol that
    resolves addresses, ``sysctls`` the prefix of the family's settings, ``header_bytes`` the size
    of an IP header without options. ``icmp_errors`` are the ICMP types about another packet that
    IPVS relates to its connections (net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_icmp and
    ip_vs_in_icmp_v6).
    """

    version: int
    name: str
    number: int
    neighbours: str
    sysctls: str
    header_bytes: int
    icmp_errors: frozenset[int]


IPV4 = AddressFamily(
    version=4,
    name="IPv4",
    number=int(socket.AF_INET),
    neighbours="ARP",
    sysctls="net.ipv4",
    header_bytes=20,
    icmp_errors=frozenset({3, 4, 11}),  # unreachable, source quench, time exceeded
)
IPV6 = AddressFamily(
    version=6,
    name="IPv6",
    number=int(socket.AF_INET6),
    neighbours="neighbour discovery",
    sysctls="net.ipv6",
    header_bytes=40,
    icmp_errors=frozenset({1, 2, 3, 4}),  # unreachable, too big, time exceeded, parameter problem
)


def family_of(address: IPAddress | IPInterface | IPNetwork) -> AddressFamily:
    """The address family of an address or network."""
    return IPV6 if address.version == 6 else IPV4


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
        tail = hashlib.sha256(address.packed).digest()[:4]
    return (b"\x02\x00" + tail).hex(":")
