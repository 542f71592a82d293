"""Neighbours of a namespace (ARP and ND), as ip-neighbour(8) shows them: messages and state.

Sources: rtnetlink(7), linux/neighbour.h.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address

from lvsctl.model.addresses import IPAddress
from lvsctl.model.state import NeighbourState
from lvsctl.netlink import sockets
from lvsctl.netlink.messages import FAMILIES, body, decode

from pyroute2.netlink.rtnl.ndmsg import ndmsg, states  # isort: skip (after the shim)

NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30  # RTM_*

_STATES = {number: name for name, number in states.items() if name != "none"}
"""ip-neighbour(8)'s words. NONE is no entry to show, NOARP only where a user made it."""
_NUD = {name: number for number, name in _STATES.items()}
_NTF_PROXY = 0x08


def set_neighbour(
    address: IPAddress, mac: str, index: int, *, state: str = "permanent"
) -> bytearray:
    """Set an entry of the ARP or ND cache, by default a permanent one (ip-neighbour(8))."""
    attributes = [("NDA_DST", str(address)), ("NDA_LLADDR", mac)]
    family = FAMILIES[address.version]
    entry = body(ndmsg, attributes, family=family, ifindex=index, state=_NUD[state])
    return sockets.message(NEWNEIGH, sockets.SET, entry)


def delete_neighbour(address: IPAddress, index: int) -> bytearray:
    """Delete an entry of the ARP or ND cache."""
    attributes = [("NDA_DST", str(address))]
    entry = body(ndmsg, attributes, family=FAMILIES[address.version], ifindex=index)
    return sockets.message(DELNEIGH, 0, entry)


def dump_neighbours(sock: socket.socket, names: dict[int, str]) -> tuple[NeighbourState, ...]:
    """Return the entries of the ARP and ND caches. ``names`` are the links by index."""
    found = []
    for whole in sockets.request(sock, sockets.message(GETNEIGH, sockets.DUMP, body(ndmsg))):
        entry = decode(ndmsg, whole, "NDA_DST", "NDA_LLADDR")
        if entry["family"] not in FAMILIES.values() or entry["state"] not in _STATES:
            continue
        one = NeighbourState(
            address=ip_address(entry.get_attr("NDA_DST")),
            device=names.get(entry["ifindex"], ""),
            mac=_mac(entry.get_attr("NDA_LLADDR")),
            state=_STATES[entry["state"]],
        )
        if one.state != "noarp" or _made_by_hand(one):
            found.append(one)
    return tuple(found)


def _made_by_hand(one: NeighbourState) -> bool:
    """Return whether an entry without ARP is a user's.

    The kernel makes such for loopback, multicast and broadcast, and on links without ARP.
    """
    unicast = bool(one.mac) and int(one.mac[:2], 16) % 2 == 0 and one.mac != "00:00:00:00:00:00"
    return unicast and not one.address.is_multicast and one.device != "lo"


def dump_proxies(sock: socket.socket, names: dict[int, str]) -> tuple[NeighbourState, ...]:
    """Return the addresses that are answered for in place of others (ip neigh show proxy)."""
    asked = sockets.message(GETNEIGH, sockets.DUMP, body(ndmsg, flags=_NTF_PROXY))
    found = []
    for whole in sockets.request(sock, asked):
        entry = decode(ndmsg, whole, "NDA_DST")
        if entry["family"] in FAMILIES.values() and entry["flags"] & _NTF_PROXY:
            address = ip_address(entry.get_attr("NDA_DST"))
            found.append(NeighbourState(address, names.get(entry["ifindex"], ""), "", "proxy"))
    return tuple(found)


def set_proxy(address: IPAddress, index: int, *, delete: bool = False) -> bytearray:
    """Answer ARP or ND for an address in place of others, or no longer."""
    entry = body(
        ndmsg,
        [("NDA_DST", str(address))],
        family=FAMILIES[address.version],
        ifindex=index,
        flags=_NTF_PROXY,
    )
    return sockets.message(DELNEIGH if delete else NEWNEIGH, 0 if delete else sockets.SET, entry)


def _mac(value: str | None) -> str:
    return value if value is not None and len(value) == len("00:00:00:00:00:00") else ""
