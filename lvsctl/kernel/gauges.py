"""The instruments of `watch`: a lab's namespaces kept open, read again and again.

Each namespace has one socket to ask by and one that rings: the kernel tells it, by
rtnetlink's multicast groups, when a device, an address, a route, a neighbour or a setting
that netconf knows has changed. What has no event is read when the time has come: IPVS's
table, the counters, and the ARP sysctls (netconf does not tell those).

Sources: rtnetlink(7), linux/rtnetlink.h (RTNLGRP_*), net/ipv4/devinet.c
(inet_netconf_notify_devconf), net/core/net-procfs.c (/proc/net/dev).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Self

from lvsctl.errors import LabError
from lvsctl.kernel import connections, netns, paths, rtnl_dump, snmp, state, wire
from lvsctl.kernel.drop_reasons import DropReasons
from lvsctl.kernel.session import Opened, Session
from lvsctl.model.lab import Lab
from lvsctl.model.sample import Gauge, HalfOpen, Sample
from lvsctl.model.state import NodeState, ServiceState

GROUPS = (1, 3, 5, 7, 9, 11, 24, 25)
"""RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE, IPV4_NETCONF, IPV6_…"""

FOLLOWED = (
    "net.ipv4.ip_forward",
    f"net.ipv4.conf.{state.DEVICE}.arp_ignore",
    f"net.ipv4.conf.{state.DEVICE}.arp_announce",
    f"net.ipv4.conf.{state.DEVICE}.rp_filter",
)
"""Sysctls that decide whether packets get through, read each time: few, since files are slow."""

MOST_CONNECTIONS = 20_000
"""Entries of the connection table beyond which it is not read: /proc writes each out as text."""

_WAITING = "SYN_RECV"
_OWN = "/proc/self/ns/net"


@dataclass(slots=True)
class _Place:
    """One node's namespace, open. ``inode`` tells it from another of the same name."""

    opened: Opened
    inode: int
    bell: socket.socket
    stale: bool = True
    """Whether what was read of its configuration may have changed."""
    state: NodeState | None = None


class Gauges:
    """The namespaces of ``lab``, open until the end of the ``with``.

    Open namespaces outlive their lab, so whoever holds this looks whether it still runs.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._director = lab.directors[0].name
        self._places: dict[str, _Place] = {}
        self._session = Session(lab.name)
        self._reasons = DropReasons()
        self._dropped: dict[str, int] = {}

    def __enter__(self) -> Self:
        with ExitStack() as failing:
            failing.callback(self.close)
            self._session.make_room(len(self._lab.nodes))
            netns.in_thread(self._look_for_places)
            self._dropped = self._reasons.__enter__().counts()
            failing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every namespace."""
        for node in tuple(self._places):
            self._let_go(node)
        self._reasons.__exit__()
        self._session.__exit__()

    @property
    def bells(self) -> tuple[socket.socket, ...]:
        """Sockets that are readable when something has changed at a node."""
        return tuple(place.bell for place in self._places.values())

    def hear(self) -> bool:
        """Take in what has rung; whether anything has."""
        heard = False
        for place in self._places.values():
            while _rang(place.bell):
                heard = place.stale = True
        return heard

    def sample(self) -> Sample:
        """Everything, now. Raises HostError without root or IPVS."""
        return netns.in_thread(self._sample)

    # ── in a thread of its own ───────────────────────────────────────────────────────────────

    def _sample(self) -> Sample:
        self._look_for_places()
        states: dict[str, NodeState] = {}
        gauges: dict[str, Gauge] = {}
        table: tuple[ServiceState, ...] = ()
        half_open: HalfOpen | None = frozenset()
        for node, place in self._places.items():
            with netns.enter(place.opened.fd):
                states[node] = self._state(node, place)
                gauges[node] = _gauge(states[node])
                if node == self._director:
                    table = self._table(place.opened)
                    half_open = _half_open(table)
        before, self._dropped = self._dropped, self._reasons.counts()
        dropped = self._reasons.dropped(before)
        return Sample(time.time(), time.monotonic(), states, gauges, table, half_open, dropped)

    def _state(self, node: str, place: _Place) -> NodeState:
        """The node's state: its configuration where that may have changed, its settings always."""
        if place.stale or place.state is None:
            place.stale = False
            sock = place.opened.route
            links = rtnl_dump.links(sock)
            names = {link.index: link.name for link in links}
            place.state = NodeState(
                netns=self._lab.netns(node),
                links=links,
                routes=rtnl_dump.routes(sock, names),
                neighbours=rtnl_dump.neighbours(sock, names),
            )
        place.state = replace(place.state, sysctls=state.settings(FOLLOWED, place.state.links))
        return place.state

    def _table(self, director: Opened) -> tuple[ServiceState, ...]:
        from lvsctl.kernel import ipvs  # imports some of pyroute2

        return ipvs.services(self._session.generic(director))

    def _look_for_places(self) -> None:
        """Open what is new, let go of what is gone or was made anew."""
        for node in self._lab.nodes:
            place = self._places.get(node.name)
            inode = _inode(self._lab.netns(node.name))
            if place is not None and place.inode == inode:
                continue
            if place is not None:
                self._let_go(node.name)
            if inode is not None:
                with suppress(LabError):  # it went this very moment
                    opened = self._session.open(self._lab.netns(node.name))
                    with netns.enter(opened.fd):
                        self._places[node.name] = _Place(opened, inode, _bell())

    def _let_go(self, node: str) -> None:
        self._places.pop(node).bell.close()
        self._session.close(self._lab.netns(node))


def _bell() -> socket.socket:
    """A socket of the calling thread's namespace that hears of every change."""
    with ExitStack() as opened:
        bell = opened.enter_context(wire.open_socket())
        bell.setblocking(False)
        wire.subscribe(bell, *GROUPS)
        opened.pop_all()
    return bell


def _inode(name: str) -> int | None:
    """The number of a namespace; None where nothing is mounted at its name any more."""
    try:
        found = os.stat(paths.NETNS / name)  # noqa: PTH116 (a hundred times a second)
    except OSError:
        return None
    return found.st_ino if found.st_dev == os.stat(_OWN).st_dev else None  # noqa: PTH116


def _rang(bell: socket.socket) -> bool:
    """Take one notification, whatever it says: where many were lost there are many to come."""
    try:
        bell.recv(1 << 16)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
    return True


def _gauge(found: NodeState) -> Gauge:
    wanted = {link.name for link in found.links if link.kind in ("veth", "")} - {"lo"}
    counts = [counts for device, counts in _devices() if device in wanted]
    columns = zip((0, 0, 0, 0), *counts, strict=True)
    received, packets_received, sent, packets_sent = map(sum, columns)
    return Gauge(received, sent, packets_received, packets_sent, snmp.counters())


def _devices() -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Each device of the thread's namespace: bytes and packets that came, and that went."""
    with open("/proc/thread-self/net/dev", encoding="ascii", errors="replace") as table:  # noqa: PTH123
        for line in table:
            name, colon, counts = line.rpartition(":")
            words = counts.split()
            if colon and len(words) >= 10:
                yield name.strip(), (int(words[0]), int(words[1]), int(words[8]), int(words[9]))


def _half_open(table: Collection[ServiceState]) -> HalfOpen | None:
    servers = [server for service in table for server in service.real_servers]
    if sum(server.active + server.inactive for server in servers) > MOST_CONNECTIONS:
        return None
    return frozenset(
        (one.rip, f"{one.protocol} {one.client}:{one.client_port} {one.vip}:{one.vport}")
        for one in connections.connections(in_state=_WAITING)
    )
