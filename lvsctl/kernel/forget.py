"""Making nodes forget what they learnt from earlier traffic.

So that an experiment shows everything from the beginning: every neighbour is asked
for anew, and every path's MTU is found out anew.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from lvsctl.kernel import netns, nldump, rtnl_dump, sysctl, wire
from lvsctl.model.state import NeighbourState

_DELETE_NEIGHBOUR = 29  # RTM_DELNEIGH
_NDMSG = struct.Struct("=BxxxiHBB")
_DESTINATION = 1  # NDA_DST
_INET, _INET6 = 2, 10

_KEPT = frozenset({"permanent", "noarp"})
"""Entries that somebody configured, or that are no learning at all."""


def forget_learnt(namespaces: Iterable[str]) -> None:
    """Empty the ARP and ND caches and the path MTUs learnt, in each of ``namespaces``.

    Raises LabError where one is gone, HostError without root.
    """

    def everywhere() -> None:
        for name in namespaces:
            with netns.enter(name):
                _forget()

    netns.in_thread(everywhere)


def _forget() -> None:
    with wire.open_socket() as sock:
        devices = {link.index: link.name for link in rtnl_dump.links(sock)}
        indexes = {name: index for index, name in devices.items()}
        learnt = [
            _deletion(entry, indexes[entry.device])
            for entry in rtnl_dump.neighbours(sock, devices)
            if entry.state not in _KEPT and entry.device in indexes
        ]
        wire.send_all(sock, learnt)  # one that expired by itself meanwhile is no error
    sysctl.write("net.ipv4.route.flush", "1")
    sysctl.write("net.ipv6.route.flush", "1", optional=True)


def _deletion(entry: NeighbourState, index: int) -> bytearray:
    family = _INET if entry.address.version == 4 else _INET6
    address = entry.address.packed
    attribute = struct.pack("=HH", 4 + len(address), _DESTINATION) + address
    body = _NDMSG.pack(family, index, 0, 0, 0) + attribute
    return nldump.packed(_DELETE_NEIGHBOUR, body, flags=0)
