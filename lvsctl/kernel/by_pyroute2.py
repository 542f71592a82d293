"""Netlink messages that pyroute2 encodes: the shapes that lie in shapes.txt, and any other.

Importing this is nothing; the first message imports pyroute2's classes, which takes 45 ms.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from importlib import import_module
from ipaddress import ip_address
from itertools import product
from typing import Any, NamedTuple

from lvsctl.kernel import lazy_pyroute2, wire
from lvsctl.kernel.rtnl import (
    ADD,
    DELADDR,
    DELLINK,
    DELROUTE,
    GETLINK,
    IFA_F_NODAD,
    IFF_UP,
    NETEM_LIMIT,
    NEWADDR,
    NEWLINK,
    NEWQDISC,
    NEWROUTE,
    SET,
    TC_H_ROOT,
)
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    Protocol,
    RealServer,
    Scheduler,
    ServiceKey,
)
from lvsctl.resources.ops import AddRealServer, AddService


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


def link_up() -> bytearray:
    """A device, by its index, up."""
    return encode("link", NEWLINK, wire.REQUEST, index=0, flags=IFF_UP, change=IFF_UP)


def link_state(up: int, room: int, name: str = "") -> bytearray:
    """A device known by name, up or down."""
    return encode("link", NEWLINK, wire.REQUEST, flags=IFF_UP if up else 0, change=IFF_UP,
                  attrs=[("IFLA_IFNAME", name or "d" * room)])  # fmt: skip


def bridge(room: int, name: str = "", index: int = 0) -> bytearray:
    """A bridge without multicast snooping and VLANs, up."""
    data = [("IFLA_BR_MCAST_SNOOPING", 0), ("IFLA_BR_VLAN_DEFAULT_PVID", 0)]
    return encode("link", NEWLINK, ADD, index=index, flags=IFF_UP, change=IFF_UP,
                  attrs=[("IFLA_IFNAME", name or "d" * room), _kind("bridge", data)])  # fmt: skip


def veth(
    port_room: int, device_room: int, port: str = "", port_index: int = 0, master: int = 0,
    device: str = "", device_index: int = 0, mac: str = "0:0:0:0:0:0", device_netns: int = 0,
) -> bytearray:  # fmt: skip
    """A veth pair: one end here, up, in a bridge; the other, down, in another namespace."""
    queues = [("IFLA_NUM_TX_QUEUES", 1), ("IFLA_NUM_RX_QUEUES", 1)]
    peer = [
        ("IFLA_IFNAME", device or "d" * device_room),
        ("IFLA_ADDRESS", mac),
        ("IFLA_NET_NS_FD", device_netns),
        *queues,
    ]
    data = [("VETH_INFO_PEER", {"index": device_index, "attrs": peer})]
    attrs = [
        ("IFLA_IFNAME", port or "p" * port_room),
        ("IFLA_MASTER", master),
        *queues,
        _kind("veth", data),
    ]
    return encode("link", NEWLINK, ADD, index=port_index, flags=IFF_UP, change=IFF_UP, attrs=attrs)


def ipip(room: int, name: str = "", index: int = 0) -> bytearray:
    """A tunnel device of that kind with neither end given."""
    return _tunnel("ipip", room, name, index)


def gre(room: int, name: str = "", index: int = 0) -> bytearray:
    """A tunnel device of that kind with neither end given."""
    return _tunnel("gre", room, name, index)


def _tunnel(kind: str, room: int, name: str, index: int) -> bytearray:
    attrs = [("IFLA_IFNAME", name or "d" * room), _kind(kind)]
    return encode("link", NEWLINK, ADD, index=index, attrs=attrs)


def _kind(kind: str, data: list[tuple[str, Any]] | None = None) -> tuple[str, Any]:
    attrs: list[tuple[str, Any]] = [("IFLA_INFO_KIND", kind)]
    if data:
        attrs.append(("IFLA_INFO_DATA", {"attrs": data}))
    return "IFLA_LINKINFO", {"attrs": attrs}


def delete_link(room: int, name: str = "") -> bytearray:
    """A device, gone."""
    attrs = [("IFLA_IFNAME", name or "d" * room)]
    return encode("link", DELLINK, wire.REQUEST, attrs=attrs)


def get_links() -> bytearray:
    """A request for all devices, without their statistics."""
    return encode("link", GETLINK, wire.REQUEST, attrs=[("IFLA_EXT_MASK", 8)])


def address(
    version: int, delete: int, text: str = "", prefix: int = 0, index: int = 0
) -> bytearray:
    """An address, or its removal. IPv6 is usable at once (nodad)."""
    text = text or _nothing(version)
    return encode(
        "address", DELADDR if delete else NEWADDR, wire.REQUEST if delete else ADD,
        family=_family(version), prefixlen=prefix, flags=IFA_F_NODAD if version == 6 else 0,
        scope=0, index=index, attrs=[("IFA_LOCAL", text), ("IFA_ADDRESS", text)],
    )  # fmt: skip


def route(
    message_type: int, flags: int, version: int, to: int,
    network: str = "", prefix: int = 0, via: str = "",
) -> bytearray:  # fmt: skip
    """A static route of the main table; without ``to`` the default route."""
    attrs = [("RTA_GATEWAY", via or _nothing(version))]
    if to:
        attrs.append(("RTA_DST", network or _nothing(version)))
    deleting = message_type == DELROUTE
    return encode(
        "route", message_type, flags, attrs=attrs, family=_family(version),
        dst_len=prefix, table=254,
        proto=0 if deleting else 3,  # RTPROT_BOOT, as ip-route(8) has it
        scope=255 if deleting else 0, type=1,  # when deleting: of any scope; RTN_UNICAST
    )  # fmt: skip


def netem(limited: int, index: int = 0, delay: int = 0, loss: int = 0, rate: int = 0) -> bytearray:
    """An impairment, in ticks, 2**-32 and bytes per second, in place of any other root qdisc."""
    fields = {"rate": rate, "packet_overhead": 0, "cell_size": 0, "cell_overhead": 0}
    options = {
        "delay": delay, "limit": NETEM_LIMIT, "loss": loss, "gap": 0, "duplicate": 0, "jitter": 0,
        "attrs": [("TCA_NETEM_RATE", fields)] if limited else [],
    }  # fmt: skip
    return encode("tc", NEWQDISC, SET, index=index, parent=TC_H_ROOT,
                  attrs=[("TCA_KIND", "netem"), ("TCA_OPTIONS", options)])  # fmt: skip


def service(version: int, scheduler_length: int) -> bytearray:
    """A virtual service, whose scheduler has a name of that length."""
    from lvsctl.kernel import ipvs

    scheduler = next(one for one in Scheduler if len(one) == scheduler_length)
    return ipvs.message_by_pyroute2(AddService(netns="", service=_key(version),
                                               scheduler=scheduler), 0)  # fmt: skip


def real_server(version: int, rip_version: int, tunnel: int) -> bytearray:
    """A real server; ``tunnel`` 1: of a kind that must be said, 2: to a port that must be too."""
    from lvsctl.kernel import ipvs

    op = AddRealServer(
        netns="",
        service=_key(version),
        forward=ForwardingMethod.TUN if tunnel else ForwardingMethod.NAT,
        real_server=RealServer("", ip_address(_nothing(rip_version)), 0),
        encapsulation=Encapsulation.GUE if tunnel else Encapsulation.IPIP,
        tunnel_port=1 if tunnel == 2 else 0,
    )
    return ipvs.message_by_pyroute2(op, 0)


def _key(version: int) -> ServiceKey:
    return ServiceKey(Protocol.TCP, ip_address(_nothing(version)), 0)


def _nothing(version: int) -> str:
    return "0.0.0.0" if version == 4 else "::"


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


class Kind(NamedTuple):
    """How a kind of shape is encoded, and of which words an ordinary lab has it."""

    encode: Callable[..., bytearray]
    words: tuple[tuple[int, ...], ...] = ((),)


_ROOMS = (3, 7, 11, 15)
_VERSIONS = (4, 6)
_ROUTES = ((NEWROUTE, ADD), (NEWROUTE, SET), (DELROUTE, wire.REQUEST))

KINDS: dict[str, Kind] = {
    "link-up": Kind(link_up),
    "link-state": Kind(link_state, tuple(product((0, 1), _ROOMS))),
    "bridge": Kind(bridge, tuple(product(_ROOMS))),
    "veth": Kind(veth, tuple(product(_ROOMS, _ROOMS))),
    "ipip": Kind(ipip, tuple(product(_ROOMS))),
    "gre": Kind(gre, tuple(product(_ROOMS))),
    "delete-link": Kind(delete_link, tuple(product(_ROOMS))),
    "get-links": Kind(get_links),
    "address": Kind(address, tuple(product(_VERSIONS, (0, 1)))),
    "route": Kind(route, tuple((*r, v, to) for r, v, to in product(_ROUTES, _VERSIONS, (0, 1)))),
    "netem": Kind(netem, ((0,), (1,))),
    "service": Kind(service, tuple(product(_VERSIONS, sorted({len(s) for s in Scheduler})))),
    "real-server": Kind(real_server, tuple(product(_VERSIONS, _VERSIONS, (0, 1, 2)))),
}
"""Every kind of shape by its name in the file."""
