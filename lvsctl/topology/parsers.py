"""Parsers for single values of a topology file: addresses, durations, rates, names.

Each ``parse_*`` function returns the value of a text or raises ``InvalidValue``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)

from lvsctl.errors import quoted
from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.service import PortRange

# A network's name is the name of its interfaces and a node's that of its switch port:
# IFNAMSIZ - 1 (linux/if.h).
MAX_INTERFACE_NAME = 15
MAX_LABEL = 31
NAME_PATTERN = r"[a-z][a-z0-9-]*"
# Devices that the kernel creates in every namespace, entries of /proc/sys/net/*/conf that
# are not devices, and the switch.
RESERVED_NAMES = (
    *("all", "default", "lo", "bridge"),
    *("tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0"),
)

ADDRESS_PATTERN = r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*"
INTERFACE_PATTERN = rf"({ADDRESS_PATTERN})(/[0-9]{{1,3}})?"
IPV4_SUBNET_PATTERN = r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+/[0-9]{1,2}"
IPV6_SUBNET_PATTERN = r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*/[0-9]{1,3}"
ROUTE_PATTERN = rf"default|{INTERFACE_PATTERN}"
SYSCTL_PATTERN = r"net(\.[a-zA-Z0-9_-]+)+"

_NUMBER = r"[0-9]+(\.[0-9]+)?"
_DELAY_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_SPAN_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# tc(8), "RATES": bits, and bytes where the unit ends in "ps"; k is 1000, ki is 1024.
_RATE_UNITS = {
    f"{prefix}{unit}": factor * bits
    for prefix, factor in {
        "": 1,
        "k": 10**3,
        "m": 10**6,
        "g": 10**9,
        "t": 10**12,
        "ki": 2**10,
        "mi": 2**20,
        "gi": 2**30,
        "ti": 2**40,
    }.items()
    for unit, bits in (("bit", 1), ("bps", 8))
}
DELAY_PATTERN = rf"{_NUMBER} ?(us|ms|s)?"
LOSS_PATTERN = rf"{_NUMBER} ?%?"
RATE_PATTERN = rf"{_NUMBER} ?([kKmMgGtT][iI]?)?([bB][iI][tT]|[bB][pP][sS])|[0-9]+"
SPAN_PATTERN = r"[0-9]+ ?[smhd]?"

MAX_DELAY_MS = 60_000
MAX_RATE = 10**13
MAX_PERSISTENCE = 31 * 86400  # ipvsadm(8), --persistent
MAX_COUNT = 1000

_UNUSABLE = tuple(
    ip_network(subnet)
    for subnet in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8")
)


class InvalidValue(ValueError):
    """The text is not a valid value; ``hint`` is an example of one that is."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def parse_name(text: str) -> str:
    """Parse the name of a node or a network, which is also the name of an interface."""
    if text in RESERVED_NAMES:
        taken = f"the name {quoted(text)} is taken by the kernel or the switch"
        raise InvalidValue(taken, "choose another name")
    return _parse_name(text, MAX_INTERFACE_NAME, " (it names an interface)")


def parse_label(text: str) -> str:
    """Parse the name of a lab, a service or a group."""
    return _parse_name(text, MAX_LABEL, "")


def _parse_name(text: str, longest: int, why: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        proposal = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:longest]
        such_as = f", such as {quoted(proposal)}" if re.fullmatch(NAME_PATTERN, proposal) else ""
        right = f"small letters, digits and '-', a letter first{such_as}"
        raise InvalidValue(f"{quoted(text)} is not a name", right)
    if len(text) > longest:
        raise InvalidValue(
            f"the name {quoted(text)} is too long: {len(text)} characters",
            f"at most {longest} characters{why}",
        )
    return text


def parse_text(text: str) -> str:
    """Parse a line of printable characters."""
    if not text.strip():
        raise InvalidValue("is empty", "write some text, or leave the key out")
    if not text.isprintable():
        raise InvalidValue(
            "contains a line break or a control character", "one line of printable text"
        )
    return text


def parse_command(text: str) -> str:
    """Parse an argument of a command: anything but NUL, which execve(2) cannot pass."""
    if "\0" in text:
        raise InvalidValue("contains a NUL character", "a command without NUL characters")
    return text


def parse_script(text: str) -> str:
    """Parse a script for /bin/sh."""
    if not text.strip():
        raise InvalidValue("is empty", "write a command, or leave the key out")
    return parse_command(text)


def parse_sysctl(text: str) -> str:
    """Parse the name of a sysctl that belongs to a network namespace."""
    if re.fullmatch(SYSCTL_PATTERN, text):
        return text
    slashed = text.removeprefix("/proc/sys/").replace("/", ".")
    hint = "such as net.ipv4.conf.all.arp_ignore"
    if slashed != text and re.fullmatch(SYSCTL_PATTERN, slashed):
        hint = f"write {slashed}"
    elif re.fullmatch(r"[a-z]+(\.[a-zA-Z0-9_-]+)+", text):
        hint = "only net.* belongs to a node; anything else would change the host"
    raise InvalidValue(f"{quoted(text)} is not a sysctl of a node", hint)


def parse_address(text: str) -> IPAddress:
    """Parse an IPv4 or IPv6 address without prefix length."""
    try:
        address = ip_address(text)
    except ValueError:
        bare = text.partition("/")[0]
        if bare != text and _is_address(bare):
            raise InvalidValue(f"{quoted(text)} has a prefix length", f"write {bare}") from None
        raise InvalidValue(f"{quoted(text)} is not an IP address", _address_hint(text)) from None
    if "%" in text:
        raise InvalidValue(f"{quoted(text)} has a scope", f"write {text.partition('%')[0]}")
    return address


def parse_interface(text: str) -> IPAddress | IPInterface:
    """Parse a node's address, with or without prefix length."""
    bare, slash, prefix = text.partition("/")
    address = parse_address(bare)
    if not slash:
        return address
    if not re.fullmatch("[0-9]{1,3}", prefix) or int(prefix) > address.max_prefixlen:
        raise InvalidValue(f"{quoted(text)} has no valid prefix length", f"write {bare}")
    return ip_interface(f"{address}/{int(prefix)}")


def parse_ipv4_subnet(text: str) -> IPv4Network:
    """Parse an IPv4 subnet in CIDR notation."""
    subnet = _parse_subnet(text, "10.10.0.0/24")
    if isinstance(subnet, IPv4Network):
        return subnet
    raise InvalidValue(f"{subnet} is an IPv6 subnet", f"write ipv6: {subnet}")


def parse_ipv6_subnet(text: str) -> IPv6Network:
    """Parse an IPv6 subnet in CIDR notation."""
    subnet = _parse_subnet(text, "fd00:10::/64")
    if isinstance(subnet, IPv6Network):
        return subnet
    raise InvalidValue(f"{subnet} is an IPv4 subnet", f"write ipv4: {subnet}")


def parse_route_target(text: str) -> IPNetwork | None:
    """Parse a route's target: a subnet, an address, or ``default`` (None)."""
    if text == "default":
        return None
    if _is_address(text):
        return ip_network(text)
    return _parse_network(text, "10.20.0.0/24, or default")


def parse_delay(text: str) -> float:
    """Parse a delay; the result is in milliseconds."""
    return _parse_quantity(
        text, _DELAY_UNITS, 1.0, (0, MAX_DELAY_MS), "a delay", "20ms (at most 60s)"
    )


def share_of(what: str) -> Callable[[str], float]:
    """Return the parser of a share of frames in percent; ``what`` happens to them."""
    return lambda text: _parse_quantity(
        text, {"%": 1}, 1, (0, 100), f"a share of {what} frames", "1% (at most 100%)"
    )


def parse_rate(text: str) -> int:
    """Parse a rate in tc's units; the result is in bits per second."""
    right = "10mbit (tc's units: kbit, mbit, gbit …)"
    rate = _parse_quantity(text.lower(), _RATE_UNITS, 1, (1, MAX_RATE), "a rate", right)
    return round(rate)


def parse_duration(text: str) -> int:
    """Parse a duration; the result is in whole seconds."""
    right = "300 or 5m (at most 31d)"
    return round(_parse_quantity(text, _SPAN_UNITS, 1, (1, MAX_PERSISTENCE), "a time", right))


VRRP_WORD = r"[A-Za-z0-9_.:@%+=-]{1,8}"
"""auth_pass of keepalived.conf(5), without what has a meaning there; VRRP has 8 bytes for it."""


def parse_vrrp_password(text: str) -> str:
    """Check a password of VRRP version 2."""
    if not re.fullmatch(VRRP_WORD, text):
        message = "a password of VRRP has 1 to 8 characters"
        raise InvalidValue(message, "letters, digits and _ . : @ % + = -")
    return text


def parse_interval(text: str) -> float:
    """Parse the interval of VRRP's advertisements; the result is in seconds.

    The field has 12 bits of hundredths of a second (RFC 5798, section 5.2.7).
    """
    right = "1s or 200ms (10ms to 40s)"
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
    seconds = _parse_quantity(text, units, 1.0, (0, 40), "a time", right)
    if round(seconds * 100) < 1 or abs(seconds * 100 - round(seconds * 100)) > 1e-6:
        raise InvalidValue(f"{quoted(text)} is no whole number of 10 ms", f"such as {right}")
    return round(seconds, 2)


PORTS_PATTERN = r"[0-9]{1,5}(-[0-9]{1,5})?|any"


def parse_ports(text: str) -> tuple[PortRange, ...]:
    """Parse a port or a range of ports; empty: any."""
    right = "80, 8000-8010 or any"
    if text == "any":
        return ()
    match = re.fullmatch("([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if match is None:
        raise InvalidValue(f"{quoted(text)} is not a port or a range of ports", f"such as {right}")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        wrong = f"{quoted(text)}: ports are from 1 to 65535, the lower one first"
        raise InvalidValue(wrong, f"such as {right}")
    return (PortRange(first, last),)


NETMASK_PATTERN = r"/?[0-9]{1,3}|[0-9.]{7,15}"


def parse_netmask(text: str) -> int:
    """Parse how many first bits of an address count: a number, or IPv4's dotted netmask."""
    right = "24 or 255.255.255.0 (IPv6: 64)"
    bits = text.removeprefix("/")
    if re.fullmatch("[0-9]{1,3}", bits) and 1 <= int(bits) <= 128:
        return int(bits)
    try:
        dotted = IPv4Address(text)
    except AddressValueError:
        raise InvalidValue(f"{quoted(text)} is not a netmask", f"such as {right}") from None
    mask = int(dotted)
    length = mask.bit_count()
    if not mask or mask != (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF:
        raise InvalidValue(
            f"{text} is not a netmask: its ones are not in front", f"such as {right}"
        )
    return length


def _parse_quantity(
    text: str,
    units: dict[str, int] | dict[str, float],
    bare: float,
    limits: tuple[int, int],
    what: str,
    right: str,
) -> float:
    match = re.fullmatch(rf"({_NUMBER}) ?([a-z%]*)", text)
    if match is None or len(text) > 32:
        raise InvalidValue(f"{quoted(text)} is not {what}", f"such as {right}")
    unit = match[3]
    if unit and unit not in units:
        raise InvalidValue(f"{quoted(text)}: unknown unit {quoted(unit)}", f"such as {right}")
    value = float(match[1]) * (units[unit] if unit else bare)
    low, high = limits
    if not low <= value <= high:
        wrong = "too large" if value > high else "too small"
        raise InvalidValue(f"{quoted(text)} is {wrong} for {what}", f"such as {right}")
    return value


def _parse_subnet(text: str, example: str) -> IPNetwork:
    subnet = _parse_network(text, example)
    if subnet.prefixlen == subnet.max_prefixlen:
        raise InvalidValue(f"{subnet} has room for one address only", f"such as {example}")
    if any(subnet.version == other.version and subnet.overlaps(other) for other in _UNUSABLE):
        raise InvalidValue(
            f"{subnet} contains addresses that no host can have", f"such as {example}"
        )
    return subnet


def _parse_network(text: str, example: str) -> IPNetwork:
    bare, slash, prefix = text.partition("/")
    if not _is_address(bare) or (slash and not prefix):
        raise InvalidValue(f"{quoted(text)} is not a subnet", f"such as {example}")
    address = ip_address(bare)
    if not slash:
        whole = ip_network(f"{bare}/{24 if address.version == 4 else 64}", strict=False)
        raise InvalidValue(f"{quoted(text)} has no prefix length", f"such as {whole}")
    if not re.fullmatch("[0-9]{1,3}", prefix) or int(prefix) > address.max_prefixlen:
        raise InvalidValue(
            f"{quoted(text)} has no valid prefix length",
            f"a number from 0 to {address.max_prefixlen} after the slash",
        )
    subnet = ip_network(f"{bare}/{int(prefix)}", strict=False)
    if address != subnet.network_address:
        raise InvalidValue(f"{quoted(text)} has bits set beyond its prefix", f"write {subnet}")
    return subnet


def _is_address(text: str) -> bool:
    try:
        return isinstance(ip_address(text), IPv4Address | IPv6Address) and "%" not in text
    except ValueError:
        return False


def _address_hint(text: str) -> str:
    bare, _, port = text.rpartition(":")
    if port.isdecimal() and _is_address(bare.strip("[]")):
        return f"write {bare.strip('[]')}; the port is a key of its own"
    octets = text.split(".")
    if len(octets) == 4 and all(re.fullmatch("[0-9]{1,9}", octet) for octet in octets):
        if any(int(octet) > 255 for octet in octets):
            return "each of the four numbers is at most 255"
        return "write " + ".".join(str(int(octet)) for octet in octets)
    return "such as 10.10.0.10 or fd00:10::10"
