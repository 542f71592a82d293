"""Links of a namespace, as ip-link(8) shows them: their messages and their state.

Sources: rtnetlink(7), linux/if_link.h.
"""

from __future__ import annotations

import functools
import socket
import time
from dataclasses import replace

from lvsctl.model.lab import Impairment
from lvsctl.model.state import AddressState, LinkState
from lvsctl.netlink import devices, sockets
from lvsctl.netlink.addresses import dump_addresses
from lvsctl.netlink.messages import attribute, body, decode, nested, select

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg, ifinfveth  # isort: skip (after the shim)

NEWLINK, DELLINK, GETLINK = 16, 17, 18  # RTM_*
_GROUP_LINK = 1  # RTNLGRP_LINK

_IFF_UP, _IFF_NOARP = 0x1, 0x80
_WITH_MAC = {1, 772}  # ARPHRD_ETHER, ARPHRD_LOOPBACK; pyroute2 decodes any address as a MAC
_ATTRIBUTES = tuple(
    f"IFLA_{name}"
    for name in ("ADDRESS", "IFNAME", "MTU", "QDISC", "MASTER", "LINKINFO", "CARRIER")
)
_info = ifinfmsg.ifinfo
_ONE_QUEUE = attribute(ifinfmsg, "IFLA_NUM_TX_QUEUES", 1) + attribute(
    ifinfmsg, "IFLA_NUM_RX_QUEUES", 1
)
_WITHOUT_STATISTICS = attribute(ifinfmsg, "IFLA_EXT_MASK", 1 << 3)  # RTEXT_FILTER_SKIP_STATS


@functools.lru_cache(maxsize=4096)
def _link_up(index: int) -> bytes:
    return body(ifinfmsg, index=index, flags=_IFF_UP, change=_IFF_UP)


def set_link_up(index: int) -> bytearray:
    """Set a link up: `ip link set dev … up`."""
    return sockets.message(NEWLINK, 0, _link_up(index))


def set_link_state(device: str, *, up: bool) -> bytearray:
    """Set a link, known by its name, up or down."""
    fields = body(ifinfmsg, flags=_IFF_UP if up else 0, change=_IFF_UP)
    return sockets.message(NEWLINK, 0, fields + _name(device))


def add_bridge(device: str, index: int) -> bytearray:
    """Create a bridge, up, without multicast snooping and VLANs, which a lab does not use."""
    data = attribute(_info.bridge_data, "IFLA_BR_MCAST_SNOOPING", 0)
    data += attribute(_info.bridge_data, "IFLA_BR_VLAN_DEFAULT_PVID", 0)
    fields = body(ifinfmsg, index=index, flags=_IFF_UP, change=_IFF_UP)
    return sockets.message(NEWLINK, sockets.ADD, fields + _name(device) + _kind("bridge", data))


def add_veth(
    port: str, port_index: int, master: int,
    device: str, device_index: int, mac: str, device_netns: int,
) -> bytearray:  # fmt: skip
    """Create a veth pair: ``port`` here, up, in the bridge ``master``; its peer ``device``,
    down, in the namespace of the descriptor ``device_netns``.

    The peer cannot be created up (ENOTCONN: the pair is not complete yet). One queue per end
    instead of one per CPU saves a third of the time.
    """
    peer = body(ifinfveth, index=device_index)
    peer += attribute(ifinfveth, "IFLA_IFNAME", device)
    peer += attribute(ifinfveth, "IFLA_ADDRESS", mac)
    peer += attribute(ifinfveth, "IFLA_NET_NS_FD", device_netns) + _ONE_QUEUE
    pair = body(ifinfmsg, index=port_index, flags=_IFF_UP, change=_IFF_UP) + _name(port)
    pair += attribute(ifinfmsg, "IFLA_MASTER", master) + _ONE_QUEUE
    pair += _kind("veth", nested(_info.veth_data, "VETH_INFO_PEER", peer))
    return sockets.message(NEWLINK, sockets.ADD, pair)


def add_link(device: str, kind: str, index: int = 0, data: bytes = b"") -> bytearray:
    """Create a link of ``kind`` with the kernel's defaults: `ip link add … type …`.

    ``data`` are the attributes of the kind that are not default.
    """
    fields = body(ifinfmsg, index=index)
    return sockets.message(NEWLINK, sockets.ADD, fields + _name(device) + _kind(kind, data))


def delete_link(device: str) -> bytearray:
    """Delete a link: `ip link del`."""
    return sockets.message(DELLINK, 0, body(ifinfmsg) + _name(device))


def _name(device: str) -> bytes:
    return attribute(ifinfmsg, "IFLA_IFNAME", device)


def _kind(kind: str, data: bytes = b"") -> bytes:
    content = attribute(_info, "IFLA_INFO_KIND", kind)
    if data:
        content += nested(_info, "IFLA_INFO_DATA", data)
    return nested(ifinfmsg, "IFLA_LINKINFO", content)


def request_links(sock: socket.socket) -> list[bytes]:
    """Return the kernel's answers about the links of the socket's namespace."""
    asked = sockets.message(GETLINK, sockets.DUMP, body(ifinfmsg) + _WITHOUT_STATISTICS)
    return sockets.request(sock, asked)


def dump_links(sock: socket.socket, answer: list[bytes] | None = None) -> tuple[LinkState, ...]:
    """Return the links of the socket's namespace by index, with addresses and impairment.

    ``answer`` is that of ``request_links``, where it was asked before.
    ``mac`` is empty for links that have none (a tunnel's hardware address is an IP address).
    """
    found = []
    for whole in request_links(sock) if answer is None else answer:
        link, master, qdisc = _link(select(ifinfmsg, whole, *_ATTRIBUTES))
        device = devices.device(whole)
        link = replace(
            link,
            settings=device.settings,
            peer=device.peer,
            peer_elsewhere=device.elsewhere,
        )
        found.append((link, master, qdisc))
    names = {link.index: link.name for link, _, _ in found}
    down = {link.index for link, _, _ in found if not link.up}
    addresses = dump_addresses(sock)
    netem = any(qdisc == "netem" for _, _, qdisc in found)
    impairments = _dump_impairments(sock) if netem else {}
    return tuple(
        replace(
            link,
            # The ports of a bridge that is down are disabled.
            settings=tuple(
                one for one in link.settings if one.name != "state" or master not in down
            ),
            master=names.get(master, ""),
            addresses=tuple(one.address for one in addresses.get(link.index, ())),
            unusual_addresses=tuple(one for one in addresses.get(link.index, ()) if _unusual(one)),
            impairment=impairments.get(link.index, Impairment()),
        )
        for link, master, _ in sorted(found, key=lambda one: one[0].index)
    )


def _unusual(address: AddressState) -> bool:
    return bool(address.flags or address.peer or address.scope)


@functools.lru_cache(maxsize=4096)
def _link(whole: bytes) -> tuple[LinkState, int, str]:
    """Decode a link: its state, the index of its bridge (0: none), its queueing discipline."""
    link = decode(ifinfmsg, whole)
    info = link.get_attr("IFLA_LINKINFO")
    state = LinkState(
        name=link.get_attr("IFLA_IFNAME"),
        index=link["index"],
        kind=str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else "",
        mac=link.get_attr("IFLA_ADDRESS") if link["ifi_type"] in _WITH_MAC else "",
        mtu=link.get_attr("IFLA_MTU"),
        up=bool(link["flags"] & _IFF_UP),
        carrier=bool(link.get_attr("IFLA_CARRIER")),
        noarp=bool(link["flags"] & _IFF_NOARP),
    )
    return state, link.get_attr("IFLA_MASTER") or 0, link.get_attr("IFLA_QDISC") or ""


def _dump_impairments(sock: socket.socket) -> dict[int, Impairment]:
    from lvsctl.netlink import tc  # heavy, and few labs have netem

    return tc.dump_impairments(sock)


def wait_until_operational(indexes: set[int], seconds: float) -> set[int]:
    """Wait until links of the calling thread's namespace are operational, and return the rest.

    The kernel gets there a few milliseconds after both ends are up, or a second where its
    linkwatch worker was busy.
    """
    waiting = set(indexes)
    deadline = time.monotonic() + seconds
    with sockets.open_socket() as subscribed, sockets.open_socket() as sock:
        sockets.subscribe(subscribed, _GROUP_LINK)
        asked = sockets.message(GETLINK, sockets.DUMP, body(ifinfmsg) + _WITHOUT_STATISTICS)
        waiting -= {_operational(whole) for whole in sockets.request(sock, asked)}
        for whole in sockets.events(subscribed, deadline) if waiting else ():
            waiting.discard(_operational(whole))
            if not waiting:
                break
    return waiting


def _operational(whole: bytes) -> int:
    """Return the index of the link that an answer or event shows as operational; else 0."""
    if sockets.message_type(whole) != NEWLINK:
        return 0
    link = decode(ifinfmsg, whole, "IFLA_OPERSTATE")
    return int(link["index"]) if link.get_attr("IFLA_OPERSTATE") == "UP" else 0
