"""Which addresses of a subnet a host can have, and in which order they are tried."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain

from lvsctl.model.addresses import IPAddress, IPNetwork


def first_offset(subnet: IPNetwork) -> int:
    """The lowest usable address, counted from the subnet's own."""
    return 0 if subnet.prefixlen == subnet.max_prefixlen - 1 else 1


def last_offset(subnet: IPNetwork) -> int:
    """The highest usable address, counted from the subnet's own.

    IPv4's last address is the broadcast address, except in a /31 (RFC 3021).
    """
    size = 1 << (subnet.max_prefixlen - subnet.prefixlen)
    return size - 2 if subnet.version == 4 and size > 2 else size - 1


def unusable_because(subnet: IPNetwork, address: IPAddress) -> str:
    """Why no host can have this address of the subnet; empty where one can."""
    offset = int(address) - int(subnet.network_address)
    if offset < first_offset(subnet):
        return f"is the address of the network {subnet} itself"
    if offset > last_offset(subnet):
        return f"is the broadcast address of {subnet}"
    return ""


def candidates(subnet: IPNetwork, start: str) -> Iterator[IPAddress]:
    """The usable addresses, upwards from the one that ends in ``start``, then those below.

    ``start`` is read as decimal in IPv4 and as hexadecimal in IPv6, so that .11 and
    ::11 go together.
    """
    offset = int(start, 10 if subnet.version == 4 else 16)
    first, last = first_offset(subnet), last_offset(subnet)
    for step in chain(range(offset, last + 1), range(first, min(offset, last + 1))):
        yield subnet.network_address + step


def free_address(subnet: IPNetwork, taken: Collection[IPAddress], start: str) -> IPAddress | None:
    """The first of the candidates that is not taken."""
    return next((address for address in candidates(subnet, start) if address not in taken), None)
