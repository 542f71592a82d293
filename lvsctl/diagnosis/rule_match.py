"""Whether a packet may match a rule of nftables: where no counter of the rule's own tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from lvsctl.model.addresses import IPAddress
from lvsctl.model.frame import Frame
from lvsctl.model.packet import Sctp, Tcp, Udp
from lvsctl.model.packet_filter import FilterRule
from lvsctl.model.service import Protocol

_CONDITION = re.compile(
    r"(ip6? [sd]addr|(?:tcp|udp|sctp) [sd]port|meta l4proto|ip protocol|iifname) (!= )?"
    r"(\{[^}]*\}|\S+)"
)
_VERSIONS = {"ip": 4, "ip6": 6, "arp": 0}
"""Families of tables that see one kind of packet only: ARP's, as 0, or of one IP version."""


def may_match(rule: FilterRule, frame: Frame) -> bool:
    """Return False where a condition that the rule's text has is not true of a frame.

    Conditions that are not known here count as true, and so do all within a tunnel.
    """
    version = frame.outer.version if frame.outer is not None else 0
    if _VERSIONS.get(rule.table.partition(" ")[0], version) != version:
        return False
    if len(frame.ips) > 1:
        return True
    return all(_holds(frame, *found) is not False for found in _CONDITION.findall(rule.text))


def _holds(frame: Frame, field: str, no: str, text: str) -> bool | None:
    """Whether a condition is true of a frame; None: that is not known."""
    try:
        inside = any(_is(frame, field, one) for one in _values(text))
    except ValueError:
        return None
    return inside != bool(no)


def _values(text: str) -> Iterator[str]:
    return (one.strip() for one in text.strip("{}").split(","))


def _is(frame: Frame, field: str, value: str) -> bool:
    """Whether a field has a value, is in a range or in a network. Raises ValueError."""
    if field == "iifname":
        return frame.direction.inward and frame.tap.device == value
    first, second = field.split()
    if field in ("meta l4proto", "ip protocol"):
        number = _PROTOCOLS[value].number if value in _PROTOCOLS else _number(value)
        return frame.outer is not None and frame.outer.protocol == number
    if second.endswith("addr"):
        return _is_address(frame, first, second, value)
    low, _, high = value.partition("-")
    ports = range(int(low), int(high or low) + 1)
    transport = {"tcp": frame.tcp, "udp": frame.udp, "sctp": frame.sctp}[first]
    return transport is not None and _port(transport, second) in ports


def _is_address(frame: Frame, family: str, which: str, value: str) -> bool:
    low, _, high = value.partition("-")
    network = ip_network(value, strict=False) if not high else None
    ends = None if network is not None else (ip_address(low), ip_address(high))
    outer = frame.outer
    if outer is None or outer.version != _VERSIONS[family]:
        return False
    address: IPAddress = outer.src if which == "saddr" else outer.dst
    if network is not None:
        return address in network
    return ends is not None and int(ends[0]) <= int(address) <= int(ends[1])


def _port(transport: Tcp | Udp | Sctp, which: str) -> int:
    return transport.sport if which == "sport" else transport.dport


_PROTOCOLS = {str(one): one for one in Protocol}
_OTHERS = {"icmp": 1, "ipencap": 4, "ipv6-icmp": 58}


def _number(name: str) -> int:
    return _OTHERS[name] if name in _OTHERS else int(name)
