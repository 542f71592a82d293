"""Forwarding entries and VLANs of bridges, over rtnetlink.

Sources: bridge(8), linux/neighbour.h, linux/if_bridge.h, net/bridge/br_fdb.c, br_netlink.c.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

from lvsctl.model.state import FdbState, VlanState
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import attributes, each_attribute, number_of, packed

DELLINK, GETLINK, DELNEIGH, GETNEIGH = 17, 18, 29, 30
"""Types of messages, RTM_*."""

_AF_BRIDGE = 7
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg: family, index, state, flags, type
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_LLADDR, _VLAN = 2, 5  # NDA_*
_PERMANENT, _NOARP = 0x80, 0x40  # NUD_*
_SELF, _MASTER, _STICKY = 0x02, 0x04, 0x40  # NTF_*
_AF_SPEC, _EXT_MASK, _WITH_VLANS = 26, 29, 2  # IFLA_*, RTEXT_FILTER_BRVLAN
_BRIDGE_FLAGS, _VLAN_INFO = 0, 2  # IFLA_BRIDGE_*
_FLAGS_SELF = 2
_VLAN_FLAGS = {0x2: "pvid", 0x4: "untagged"}


def dump_fdb(
    sock: socket.socket, names: Mapping[int, str], own: Mapping[str, str]
) -> tuple[FdbState, ...]:
    """Return the entries that were configured. ``own`` are the devices' own MAC addresses."""
    asked = sockets.message(GETNEIGH, sockets.DUMP, _NEIGHBOUR.pack(_AF_BRIDGE, 0, 0, 0, 0))
    found = []
    for whole in sockets.request(sock, asked):
        family, index, state, flags, _ = _NEIGHBOUR.unpack_from(whole, sockets.HEADER.size)
        if family != _AF_BRIDGE or not state & (_PERMANENT | _NOARP) or flags & _SELF:
            continue
        parts = attributes(whole, sockets.HEADER.size + _NEIGHBOUR.size)
        mac = parts.get(_LLADDR, b"").hex(":")
        if state & _PERMANENT and mac in own.values():
            continue  # the kernel's own entries for a bridge and its ports
        words = ["local" if state & _PERMANENT else "static"]
        words += ["sticky"] if flags & _STICKY else []
        found.append(FdbState(mac, names.get(index, ""), tuple(words), number_of(parts.get(_VLAN))))
    return tuple(found)


def delete_fdb(index: int, entry: FdbState, *, of_bridge: bool) -> bytearray:
    """Return the message that deletes an entry of a port, or of the bridge itself."""
    content = packed(_LLADDR, bytes.fromhex(entry.mac.replace(":", "")))
    if entry.vlan:
        content += packed(_VLAN, struct.pack("=H", entry.vlan))
    header = _NEIGHBOUR.pack(_AF_BRIDGE, index, 0, _SELF if of_bridge else _MASTER, 0)
    return sockets.message(DELNEIGH, 0, header + content)


def dump_vlans(sock: socket.socket, names: Mapping[int, str]) -> tuple[VlanState, ...]:
    """Return the VLANs of bridges and of their ports."""
    mask = packed(_EXT_MASK, struct.pack("=I", _WITH_VLANS))
    asked = sockets.message(GETLINK, sockets.DUMP, _LINK.pack(_AF_BRIDGE, 0, 0, 0, 0) + mask)
    found = []
    for whole in sockets.request(sock, asked):
        index = _LINK.unpack_from(whole, sockets.HEADER.size)[2]
        parts = attributes(whole, sockets.HEADER.size + _LINK.size)
        for number, content in each_attribute(parts.get(_AF_SPEC, b"")):
            if number != _VLAN_INFO:
                continue
            flags, vlan = struct.unpack_from("=HH", content)
            words = tuple(word for bit, word in _VLAN_FLAGS.items() if flags & bit)
            found.append(VlanState(names.get(index, ""), vlan, words))
    return tuple(found)


def delete_vlan(index: int, vlan: int, *, of_bridge: bool) -> bytearray:
    """Return the message that takes a port, or the bridge itself, out of a VLAN."""
    content = packed(_VLAN_INFO, struct.pack("=HH", 0, vlan))
    if of_bridge:
        content += packed(_BRIDGE_FLAGS, struct.pack("=H", _FLAGS_SELF))
    body = _LINK.pack(_AF_BRIDGE, 0, index, 0, 0) + packed(_AF_SPEC, content, nests=True)
    return sockets.message(DELLINK, 0, body)
