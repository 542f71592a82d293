"""What of a device differs from a new one of its kind, and messages that set it.

Flags, MTU, parameters of tunnels, of bridges and of their ports. The answers are taken apart
here and not by pyroute2, which makes an object of each of a port's forty attributes.

Sources: linux/if.h, linux/if_link.h, linux/if_tunnel.h, net/core/rtnetlink.c,
net/bridge/br_netlink.c; ip-link(8) and bridge(8) for the words.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress
from lvsctl.model.state import Setting
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import attributes, number_of, packed, text_of

NEWLINK, _GETLINK, SETLINK = 16, 18, 19
"""Types of messages, RTM_*."""

_HEADER = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_AF_BRIDGE = 7
_ADDRESS, _IFNAME, _MTU, _TXQLEN, _GROUP, _LINKINFO, _PROTINFO = 1, 3, 4, 13, 27, 18, 12
_CARRIER, _PROTO_DOWN, _XDP, _LINK_NETNSID, _LINK = 33, 39, 43, 37, 5
"""IFLA_*."""
_EXT_MASK, _WITHOUT_STATISTICS = 29, 1 << 3  # RTEXT_FILTER_SKIP_STATS
_BRIEF = packed(_EXT_MASK, struct.pack("=I", _WITHOUT_STATISTICS))
_INFO_KIND, _INFO_DATA, _SLAVE_KIND, _SLAVE_DATA = 1, 2, 4, 5
"""IFLA_INFO_*."""
_XDP_FD, _XDP_ATTACHED = 1, 2

OFF_ON = ("off", "on")
PORT_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")


class Parameter(NamedTuple):
    """A parameter: its number as an attribute, its size in bytes, what it usually is.

    ``words`` name its values, counted from 0; without them it is a number.
    """

    number: int
    size: int
    usual: int
    words: tuple[str, ...] = ()

    def text(self, value: int) -> str:
        """Return a value as ip(8) prints it."""
        return self.words[value] if value < len(self.words) else str(value)

    def value(self, text: str) -> int:
        """Return the number of a value."""
        return self.words.index(text) if text in self.words else int(text)


def _switch(number: int, usual: int = 0) -> Parameter:
    return Parameter(number, 1, usual, OFF_ON)


FLAGS: Mapping[str, tuple[int, str]] = {
    "arp": (0x80, "on"),
    "promisc": (0x100, "off"),
    "allmulticast": (0x200, "off"),
    "multicast": (0x1000, "on"),
}
"""The bit of each flag, and what it is on an Ethernet device. IFF_NOARP is the reverse of arp."""

LINK: Mapping[str, Parameter] = {
    "mtu": Parameter(_MTU, 4, 1500),
    "txqueuelen": Parameter(_TXQLEN, 4, 1000),
    "protodown": _switch(_PROTO_DOWN),
}

BRIDGE: Mapping[str, Parameter] = {
    "stp_state": Parameter(5, 4, 0),
    "vlan_filtering": Parameter(7, 1, 0),
    "vlan_default_pvid": Parameter(39, 2, 0),
    "ageing_time": Parameter(4, 4, 30000),
    "forward_delay": Parameter(1, 4, 1500),
    "priority": Parameter(6, 2, 0x8000),
    "group_fwd_mask": Parameter(9, 2, 0),
    "mcast_snooping": Parameter(23, 1, 0),
    "mcast_querier": Parameter(25, 1, 0),
    "mcast_router": Parameter(22, 1, 1),
    "nf_call_iptables": Parameter(36, 1, 0),
    "nf_call_ip6tables": Parameter(37, 1, 0),
    "nf_call_arptables": Parameter(38, 1, 0),
}
"""A lab's bridges have neither multicast snooping nor VLANs (``links.add_bridge``)."""

PORT: Mapping[str, Parameter] = {
    "state": Parameter(1, 1, 3, PORT_STATES),
    "hairpin": _switch(4),
    "guard": _switch(5),
    "root_block": _switch(6),
    "fastleave": _switch(7),
    "learning": _switch(8, 1),
    "flood": _switch(9, 1),
    "proxy_arp": _switch(10),
    "mcast_router": Parameter(25, 1, 1),
    "mcast_flood": _switch(27, 1),
    "mcast_to_unicast": _switch(28),
    "vlan_tunnel": _switch(29),
    "bcast_flood": _switch(30, 1),
    "neigh_suppress": _switch(32),
    "isolated": _switch(33),
    "locked": _switch(39),
}

_IPTUN = {
    "dev": Parameter(1, 4, 0),
    "local": Parameter(2, 4, 0),
    "remote": Parameter(3, 4, 0),
    "ttl": Parameter(4, 1, 0),
    "tos": Parameter(5, 1, 0),
    "pmtudisc": Parameter(10, 1, 0),
    "proto": Parameter(9, 1, 4),
    "encap": Parameter(15, 2, 0),
    "external": Parameter(19, 0, 0),
    "fwmark": Parameter(20, 4, 0),
}
_GRE = {
    "dev": Parameter(1, 4, 0),
    "iflags": Parameter(2, 2, 0),
    "oflags": Parameter(3, 2, 0),
    "ikey": Parameter(4, 4, 0),
    "okey": Parameter(5, 4, 0),
    "local": Parameter(6, 4, 0),
    "remote": Parameter(7, 4, 0),
    "ttl": Parameter(8, 1, 0),
    "tos": Parameter(9, 1, 0),
    "pmtudisc": Parameter(10, 1, 0),
    "encap": Parameter(14, 2, 0),
    "external": Parameter(18, 0, 0),
    "ignore_df": Parameter(19, 1, 0),
    "fwmark": Parameter(20, 4, 0),
}
TUNNELS: Mapping[str, Mapping[str, Parameter]] = {
    "ipip": _IPTUN,
    "sit": {**_IPTUN, "proto": Parameter(9, 1, 41), "ttl": Parameter(4, 1, 64)},
    "ip6tnl": {**_IPTUN, "proto": Parameter(9, 1, 0)},
    "gre": _GRE,
    "ip6gre": _GRE,
}
"""The parameters of a tunnel that takes packets of any sender, as a lab's; by its kind."""

_ADDRESSES = frozenset({"local", "remote"})
_NETWORK_ORDER = frozenset({"iflags", "oflags", "ikey", "okey"})

_USUAL_MTU = {
    "veth": 1500,
    "bridge": 1500,
    "": 65536,
    "ipip": 1480,
    "sit": 1480,
    "ip6tnl": 1452,
    "gre": 1476,
    "ip6gre": 1448,
}
"""By kind: without a device below it, a tunnel's MTU is Ethernet's less its headers.

IPv6's leave room for the tunnel encapsulation limit, an option of 8 bytes (RFC 2473).
"""
_ETHERNET = frozenset({"veth", "bridge"})


class Named(NamedTuple):
    """A device: its index, name and hardware type (ARPHRD_*)."""

    ifindex: int
    name: str
    hardware: int


def dump_names(sock: socket.socket) -> tuple[Named, ...]:
    """Return the names of the devices in the socket's namespace."""
    asked = sockets.message(_GETLINK, sockets.DUMP, _HEADER.pack(0, 0, 0, 0, 0) + _BRIEF)
    found = []
    for whole in sockets.request(sock, asked):
        _, hardware, index, _, _ = _HEADER.unpack_from(whole, sockets.HEADER.size)
        parts = attributes(whole, sockets.HEADER.size + _HEADER.size)
        found.append(Named(index, text_of(parts.get(_IFNAME)), hardware))
    return tuple(found)


class Device(NamedTuple):
    """What ``device`` finds in an answer."""

    settings: tuple[Setting, ...]
    peer: int
    elsewhere: bool
    """Whether the device ``peer`` is in another namespace."""


def device(whole: bytes) -> Device:
    """Return what of a device differs from a new one; ``whole`` is an answer to GETLINK."""
    start = sockets.HEADER.size
    _, _, _, flags, _ = _HEADER.unpack_from(whole, start)
    found = attributes(whole, start + _HEADER.size)
    info = attributes(found.get(_LINKINFO, b""))
    kind = text_of(info.get(_INFO_KIND))
    settings = tuple(_settings(kind, flags, found, info)) if kind in _USUAL_MTU else ()
    return Device(settings, number_of(found.get(_LINK)), _LINK_NETNSID in found)


def _settings(
    kind: str, flags: int, found: Mapping[int, bytes], info: Mapping[int, bytes]
) -> Iterator[Setting]:
    for name, (bit, usual) in FLAGS.items():
        if kind not in _ETHERNET and name in ("arp", "multicast"):
            continue
        value = OFF_ON[bool(flags & bit) != (name == "arp")]
        if value != usual:
            yield Setting(name, value, usual)
    for name, one in LINK.items():
        usual_number = _USUAL_MTU[kind] if name == "mtu" else one.usual
        yield from _differing(name, one._replace(usual=usual_number), found)
    attached = attributes(found.get(_XDP, b"")).get(_XDP_ATTACHED)
    if number_of(attached):
        yield Setting("xdp", "on", "off")
    data = attributes(info.get(_INFO_DATA, b""))
    parameters = BRIDGE if kind == "bridge" else TUNNELS.get(kind, {})
    for name, one in parameters.items():
        yield from _differing(name, one, data, "bridge" if kind == "bridge" else "tunnel")
    if text_of(info.get(_SLAVE_KIND)) == "bridge":
        port = attributes(info.get(_SLAVE_DATA, b""))
        works = bool(flags & 1) and number_of(found.get(_CARRIER)) == 1
        for name, one in PORT.items():
            if name != "state" or works:  # a port that is down is disabled
                yield from _differing(name, one, port, "port")


def _differing(
    name: str, one: Parameter, found: Mapping[int, bytes], group: str = "link"
) -> Iterator[Setting]:
    content = found.get(one.number)
    if content is None:
        return
    if name in _ADDRESSES:
        address = ip_address(content[: 16 if len(content) >= 16 else 4])
        if int(address):
            yield Setting(name, str(address), "any", group)
    elif not one.size:
        yield Setting(name, "on", "off", group)
    else:
        order = "big" if name in _NETWORK_ORDER else None
        value = int.from_bytes(content, "big") if order else number_of(content)
        if value != one.usual:
            yield Setting(name, one.text(value), one.text(one.usual), group)


def checked_gre(local: IPAddress, flags: int) -> bytes:
    """Return the attributes of a GRE device: packets to ``local`` with ``flags`` in their header.

    linux/if_tunnel.h: IFLA_GRE_IFLAGS, IFLA_GRE_LOCAL.
    """
    number = struct.pack(">H", flags)
    return packed(_GRE["iflags"].number, number) + packed(_GRE["local"].number, local.packed)


# ── messages ─────────────────────────────────────────────────────────────────────────────────


def set_value(index: int, group: str, name: str, value: str) -> bytearray:
    """Return the message that sets a value of a device.

    ``group`` is ``link``, ``bridge`` or ``port``. Raises KeyError for what cannot be set.
    """
    if group == "link" and name in FLAGS:
        bit, _ = FLAGS[name]
        on = (value == "on") != (name == "arp")
        return _message(NEWLINK, index, flags=bit if on else 0, change=bit)
    if group == "link" and name == "xdp":
        none = packed(_XDP_FD, struct.pack("=i", -1))
        return _message(NEWLINK, index, packed(_XDP, none, nests=True))
    if group == "link" and name == "address":
        return _message(NEWLINK, index, packed(_ADDRESS, bytes.fromhex(value.replace(":", ""))))
    if group == "link":
        return _message(NEWLINK, index, _packed(LINK[name], value))
    if group == "bridge":
        data = packed(_INFO_DATA, _packed(BRIDGE[name], value), nests=True)
        info = packed(_INFO_KIND, b"bridge\0") + data
        return _message(NEWLINK, index, packed(_LINKINFO, info, nests=True))
    content = packed(_PROTINFO, _packed(PORT[name], value), nests=True)
    return _message(SETLINK, index, content, family=_AF_BRIDGE)


def _packed(one: Parameter, value: str) -> bytes:
    number = one.value(value)
    return packed(one.number, struct.pack({1: "=B", 2: "=H", 4: "=I"}[one.size], number))


def _message(
    kind: int, index: int, content: bytes = b"", *, family: int = 0, flags: int = 0, change: int = 0
) -> bytearray:
    return sockets.message(kind, 0, _HEADER.pack(family, 0, index, flags, change) + content)
