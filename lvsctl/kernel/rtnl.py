"""The rtnetlink messages of a lab, as bytes ready for ``wire.send_all``.

Each kind of message is encoded once by pyroute2's message classes; after that its
fields are patched in place (3 µs instead of 300). ``tests/unit/test_wire.py`` holds
the result against pyroute2 byte for byte. pyroute2 is imported where it is first
needed: that takes 45 ms, which commands that change nothing must not pay.

Sources: rtnetlink(7), linux/if_link.h, linux/rtnetlink.h, linux/pkt_sched.h.
"""

from __future__ import annotations

import functools
import socket
import struct
from importlib import import_module
from ipaddress import ip_interface
from typing import Any

from lvsctl.kernel import lazy_pyroute2, wire
from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.lab import Impairment

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR = 20, 21
NEWROUTE, DELROUTE = 24, 25
NEWQDISC, DELQDISC = 36, 37
"""RTM_*."""

ADD = wire.REQUEST | wire.CREATE | wire.EXCL
SET = wire.REQUEST | wire.CREATE | wire.REPLACE

RTNLGRP_LINK = 1
IFF_UP = 1
IFA_F_NODAD = 0x02
TC_H_ROOT = 0xFFFFFFFF
NANOSECONDS_PER_TICK = 64
"""tc's clock tick inside the kernel (PSCHED_SHIFT in net/pkt_sched.h)."""
NETEM_LIMIT = 1000
"""Packets that a netem queue holds: tc-netem(8)'s own default."""

_LINK, _ADDRESS, _ROUTE = 32, 24, 28
"""Where attributes begin: after nlmsghdr and struct ifinfomsg, ifaddrmsg, rtmsg."""
_U32 = struct.Struct("=I")


def prepare() -> None:
    """Import and compile what ``encode`` needs, before anything is half done."""
    loopback = ip_interface("127.0.0.1/8")
    add_bridge("", 1, up=True)
    _veth(1, 1)
    address(loopback, 1)
    route(None, loopback.ip)


def encode(kind: str, message_type: int, request: int, /, **fields: Any) -> bytearray:
    """A message that pyroute2 encodes; ``kind`` is one of its classes.

    ``request`` is the header's NLM_F_* flags; ``fields`` are the message's own, with ``attrs``.
    """
    module, name = {
        "link": ("ifinfmsg", "ifinfmsg"),
        "address": ("ifaddrmsg", "ifaddrmsg"),
        "route": ("rtmsg", "rtmsg"),
        "tc": ("tcmsg", "tcmsg"),
    }[kind]
    lazy_pyroute2.install()
    message = getattr(import_module(f"pyroute2.netlink.rtnl.{module}"), name)()
    for field, value in fields.items():
        message[field] = value
    message["header"]["type"] = message_type
    message["header"]["flags"] = request
    message.encode()
    return bytearray(message.data)


def _offset(message: bytearray, start: int, *path: int) -> int:
    """Where the payload of a nested attribute begins.

    ``path`` is the types of the attributes on the way; a negative number skips as many
    bytes, for the header inside VETH_INFO_PEER.
    """
    end = len(message)
    for step in path:
        if step < 0:
            start -= step
            continue
        found = wire.attribute_offset(memoryview(message)[:end], start, step)
        if found is None:
            raise LookupError(f"no attribute {step} of {path}")
        start, end = found[0], found[0] + found[1]
    return start


def link_up(index: int) -> bytearray:
    """A device, up: `ip link set dev … up`."""
    message = bytearray(_link_up())
    _U32.pack_into(message, 20, index)
    return message


@functools.cache
def _link_up() -> bytes:
    return bytes(encode("link", NEWLINK, wire.REQUEST, index=0, flags=IFF_UP, change=IFF_UP))


def link_state(device: str, *, up: bool) -> bytearray:
    """A device known by name, up or down."""
    return encode("link", NEWLINK, wire.REQUEST, flags=IFF_UP if up else 0, change=IFF_UP,
                  attrs=[("IFLA_IFNAME", device)])  # fmt: skip


def add_bridge(device: str, index: int, *, up: bool) -> bytearray:
    """A bridge without multicast snooping and VLANs, which a lab has no use for."""
    data = [("IFLA_BR_MCAST_SNOOPING", 0), ("IFLA_BR_VLAN_DEFAULT_PVID", 0)]
    return encode("link", NEWLINK, ADD, index=index, flags=IFF_UP if up else 0, change=IFF_UP,
                  attrs=[("IFLA_IFNAME", device), _kind("bridge", data)])  # fmt: skip


def add_veth(
    port: str, port_index: int, master: int,
    device: str, device_index: int, mac: str, device_netns: int,
) -> bytearray:  # fmt: skip
    """A veth pair: ``port`` here, up, a port of the bridge ``master``; its peer ``device``
    in the namespace of the descriptor ``device_netns``, down.

    The peer cannot be made up at once (ENOTCONN: there is nothing at the other end yet).
    One queue per end saves a third of the time.
    """
    shape, at = _veth(len(port), len(device))
    message = bytearray(shape)
    pack = _U32.pack_into
    pack(message, 20, port_index)
    pack(message, at["master"], master)
    pack(message, at["device_index"], device_index)
    pack(message, at["device_netns"], device_netns)
    message[at["port"] : at["port"] + len(port)] = port.encode("ascii")
    message[at["device"] : at["device"] + len(device)] = device.encode("ascii")
    message[at["mac"] : at["mac"] + 6] = bytes.fromhex(mac.replace(":", ""))
    return message


@functools.cache
def _veth(port_length: int, device_length: int) -> tuple[bytes, dict[str, int]]:
    message = veth_by_pyroute2("p" * port_length, 0, 0, "d" * device_length, 0, "0" + ":0" * 5, 0)
    peer = (18, 2, 1)  # IFLA_LINKINFO, IFLA_INFO_DATA, VETH_INFO_PEER
    inside = (*peer, -16)  # its struct ifinfomsg
    return bytes(message), {
        "port": _offset(message, _LINK, 3),  # IFLA_IFNAME
        "master": _offset(message, _LINK, 10),  # IFLA_MASTER
        "device_index": _offset(message, _LINK, *peer) + 4,
        "device": _offset(message, _LINK, *inside, 3),
        "mac": _offset(message, _LINK, *inside, 1),  # IFLA_ADDRESS
        "device_netns": _offset(message, _LINK, *inside, 28),  # IFLA_NET_NS_FD
    }


def veth_by_pyroute2(
    port: str, port_index: int, master: int,
    device: str, device_index: int, mac: str, device_netns: int,
) -> bytearray:  # fmt: skip
    """The same message as ``add_veth``, encoded by pyroute2 alone."""
    queues = [("IFLA_NUM_TX_QUEUES", 1), ("IFLA_NUM_RX_QUEUES", 1)]
    peer = [
        ("IFLA_IFNAME", device),
        ("IFLA_ADDRESS", mac),
        ("IFLA_NET_NS_FD", device_netns),
        *queues,
    ]
    data = [("VETH_INFO_PEER", {"index": device_index, "attrs": peer})]
    return encode(
        "link", NEWLINK, ADD, index=port_index, flags=IFF_UP, change=IFF_UP,
        attrs=[("IFLA_IFNAME", port), ("IFLA_MASTER", master), *queues, _kind("veth", data)],
    )  # fmt: skip


def add_tunnel(device: str, index: int, kind: str) -> bytearray:
    """A tunnel device with neither end given: it decapsulates from any sender to any address.

    No more is said than `ip link add … type ipip` says, so that the device is the same.
    """
    return encode("link", NEWLINK, ADD, index=index,
                  attrs=[("IFLA_IFNAME", device), _kind(kind)])  # fmt: skip


def _kind(kind: str, data: list[tuple[str, Any]] | None = None) -> tuple[str, Any]:
    attrs: list[tuple[str, Any]] = [("IFLA_INFO_KIND", kind)]
    if data:
        attrs.append(("IFLA_INFO_DATA", {"attrs": data}))
    return "IFLA_LINKINFO", {"attrs": attrs}


def delete_link(device: str) -> bytearray:
    """A device, gone: `ip link del`."""
    return encode("link", DELLINK, wire.REQUEST, attrs=[("IFLA_IFNAME", device)])


def get_links() -> bytearray:
    """A request for all devices, for ``wire.dump``, without their statistics."""
    return encode("link", GETLINK, wire.REQUEST, attrs=[("IFLA_EXT_MASK", 8)])


def address(interface: IPInterface, index: int, *, delete: bool = False) -> bytearray:
    """An address on the device ``index``, or its removal. IPv6 is usable at once (nodad)."""
    shape, local, remote = _address(interface.version, delete)
    message = bytearray(shape)
    message[17] = interface.network.prefixlen
    _U32.pack_into(message, 20, index)
    packed = interface.packed
    message[local : local + len(packed)] = packed
    if remote:
        message[remote : remote + len(packed)] = packed
    return message


@functools.cache
def _address(version: int, delete: bool) -> tuple[bytes, int, int]:
    interface = "0.0.0.0" if version == 4 else "::"
    message = address_by_pyroute2(version, interface, 0, 0, delete=delete)
    return bytes(message), _offset(message, _ADDRESS, 2), _offset(message, _ADDRESS, 1)


def address_by_pyroute2(
    version: int, text: str, prefix: int, index: int, *, delete: bool
) -> bytearray:
    """The same message as ``address``, encoded by pyroute2 alone."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    flags = IFA_F_NODAD if version == 6 else 0
    return encode(
        "address", DELADDR if delete else NEWADDR, wire.REQUEST if delete else ADD,
        family=family, prefixlen=prefix, flags=flags, scope=0, index=index,
        attrs=[("IFA_LOCAL", text), ("IFA_ADDRESS", text)],
    )  # fmt: skip


def route(to: IPNetwork | None, via: IPAddress, *, flags: int = ADD) -> bytearray:
    """A static route of the main table; ``to`` None: the default route."""
    return _route(NEWROUTE, flags, to, via)


def delete_route(to: IPNetwork | None, via: IPAddress) -> bytearray:
    """Its removal."""
    return _route(DELROUTE, wire.REQUEST, to, via)


def _route(message_type: int, flags: int, to: IPNetwork | None, via: IPAddress) -> bytearray:
    shape, gateway, destination = _route_shape(message_type, flags, via.version, to is not None)
    message = bytearray(shape)
    packed = via.packed
    message[gateway : gateway + len(packed)] = packed
    if to is not None:
        message[17] = to.prefixlen
        packed = to.network_address.packed
        message[destination : destination + len(packed)] = packed
    return message


@functools.cache
def _route_shape(message_type: int, flags: int, version: int, to: bool) -> tuple[bytes, int, int]:
    text = "0.0.0.0" if version == 4 else "::"
    message = route_by_pyroute2(message_type, flags, version, (text, 0) if to else None, text)
    return (
        bytes(message),
        _offset(message, _ROUTE, 5),  # RTA_GATEWAY
        _offset(message, _ROUTE, 1) if to else 0,  # RTA_DST
    )


def route_by_pyroute2(
    message_type: int, flags: int, version: int, to: tuple[str, int] | None, via: str
) -> bytearray:
    """The same message as ``route``, encoded by pyroute2 alone. ``to``: address and prefix."""
    attrs = [("RTA_GATEWAY", via)]
    if to is not None:
        attrs.append(("RTA_DST", to[0]))
    deleting = message_type == DELROUTE
    return encode(
        "route", message_type, flags, attrs=attrs,
        family=socket.AF_INET if version == 4 else socket.AF_INET6,
        dst_len=to[1] if to else 0, table=254,
        proto=0 if deleting else 3,  # RTPROT_BOOT, as ip-route(8) has it
        scope=255 if deleting else 0, type=1,  # when deleting: of any scope; RTN_UNICAST
    )  # fmt: skip


def add_netem(index: int, impairment: Impairment) -> bytearray:
    """What leaves the device is impaired, in place of any earlier root qdisc (tc-netem(8))."""
    attrs: list[tuple[str, Any]] = []
    if impairment.rate:
        rate = {"rate": impairment.rate // 8, "packet_overhead": 0, "cell_size": 0,
                "cell_overhead": 0}  # fmt: skip
        attrs.append(("TCA_NETEM_RATE", rate))
    options = {
        "delay": round(impairment.delay * 1e6 / NANOSECONDS_PER_TICK),
        "limit": NETEM_LIMIT,
        "loss": round(impairment.loss / 100 * 0xFFFFFFFF),
        "gap": 0, "duplicate": 0, "jitter": 0,
        "attrs": attrs,
    }  # fmt: skip
    return encode("tc", NEWQDISC, SET, index=index, parent=TC_H_ROOT,
                  attrs=[("TCA_KIND", "netem"), ("TCA_OPTIONS", options)])  # fmt: skip


def delete_netem(index: int) -> bytearray:
    """The device without impairment."""
    return encode("tc", DELQDISC, wire.REQUEST, index=index, parent=TC_H_ROOT,
                  attrs=[("TCA_KIND", "netem")])  # fmt: skip
