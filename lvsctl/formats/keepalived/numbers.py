"""Numbers and addresses as keepalived reads them (read_unsigned and inet_stosockaddr)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_interface, ip_network

from lvsctl.model.addresses import IPAddress, IPInterface


def number(text: str, low: int, high: int) -> int | None:
    """Return a whole number within limits; None if the text is none."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or not low <= int(text) <= high:
        return None
    return int(text)


def address(text: str) -> IPAddress | None:
    """Return an address; None if the text is none, or has a scope."""
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


def interface(text: str) -> IPInterface | None:
    """Return an address with its prefix length (that of one host where none is given)."""
    try:
        return ip_interface(text) if "%" not in text else None
    except ValueError:
        return None


def netmask_bits(text: str) -> int | None:
    """Return the bits of an IPv4 netmask such as 255.255.255.0; None if it is none."""
    try:
        return ip_network(f"0.0.0.0/{IPv4Address(text)}").prefixlen
    except ValueError:
        return None


def address_range(text: str) -> list[IPAddress] | str:
    """Return the addresses of ``10.0.0.1-20``, ``10.0.0.1-10.0.0.20`` or ``10.0.0.0/28``.

    Returns what is wrong, if anything is. (alloc_vsg_entry, keepalived/check/check_data.c)
    """
    if "/" in text:
        return _subnet(text)
    first, dash, last = text.partition("-")
    start = address(first)
    if start is None:
        return f"{first!r} is not an IP address"
    if not dash:
        return [start]
    end = address(last) if re.search(r"[.:]", last) else _with_last_part(start, last)
    if end is None or end.version != start.version or int(end) < int(start):
        return f"{text!r} is not a range of addresses"
    if int(end) - int(start) > MAX_RANGE:
        return f"{text!r} has more than {MAX_RANGE} addresses"
    return [start + step for step in range(int(end) - int(start) + 1)]


MAX_RANGE = 1024


def _subnet(text: str) -> list[IPAddress] | str:
    try:
        network = ip_network(text)
    except ValueError:
        return f"{text!r} is not a subnet"
    if network.num_addresses > MAX_RANGE:
        return f"{text!r} has more than {MAX_RANGE} addresses"
    one: list[IPAddress] = [network.network_address]
    if isinstance(network, IPv4Network):
        return [network.network_address + step for step in range(network.num_addresses)] or one
    return [network.network_address + step for step in range(network.num_addresses)] or one


def _with_last_part(start: IPAddress, text: str) -> IPAddress | None:
    """Return ``start`` with its last octet (IPv4) or last 16 bits (IPv6, hexadecimal) replaced."""
    if isinstance(start, IPv6Address):
        if not re.fullmatch(r"[0-9a-fA-F]{1,4}", text):
            return None
        return IPv6Address(int(start) & ~0xFFFF | int(text, 16))
    last = number(text, 0, 255)
    return None if last is None else IPv4Address(int(start) & ~0xFF | last)
