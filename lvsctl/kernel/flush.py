"""Flush what nodes have learned from earlier traffic, so that evidence shows it all again."""

from __future__ import annotations

from collections.abc import Iterable

from lvsctl.kernel import netns, sysctl
from lvsctl.netlink import rtnl, sockets

_KEPT = frozenset({"permanent", "noarp"})
"""States of entries that are configured, not learned."""


def flush_neighbours_and_routes(namespaces: Iterable[str]) -> None:
    """Flush the ARP and ND caches and the path MTUs that were learned in ``namespaces``.

    Raises LabError where one does not exist, HostError without root.
    """

    def everywhere() -> None:
        for name in namespaces:
            with netns.enter(name):
                _flush()

    netns.in_thread(everywhere)


def _flush() -> None:
    with sockets.open_socket() as sock:
        devices = {link.index: link.name for link in rtnl.dump_links(sock)}
        indexes = {name: index for index, name in devices.items()}
        learned = [
            rtnl.delete_neighbour(entry.address, indexes[entry.device])
            for entry in rtnl.dump_neighbours(sock, devices)
            if entry.state not in _KEPT and entry.device in indexes
        ]
        sockets.send_all(sock, learned)  # one that expired meanwhile is no error
    sysctl.write("net.ipv4.route.flush", "1")
    sysctl.write("net.ipv6.route.flush", "1", optional=True)
