"""Samples of a running lab for `watch`: its namespaces are kept open and read repeatedly.

Each namespace has one socket for requests and one that is subscribed to rtnetlink's multicast
groups: it receives a message when a device, an address, a route, a neighbour or a setting that
netconf covers has changed. What has no event is read every time: IPVS's table, the counters,
and the ARP sysctls, which netconf does not cover.

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
from lvsctl.kernel import counters, netns, paths, state
from lvsctl.kernel.drops import DropReasons
from lvsctl.kernel.session import OpenNamespace, Session
from lvsctl.model.lab import Lab
from lvsctl.model.masters import master_in
from lvsctl.model.state import Gauge, HalfOpen, NodeState, Sample, ServiceState, added_up
from lvsctl.netlink import ipvs, sockets
from lvsctl.netlink.links import dump_links
from lvsctl.netlink.neighbours import dump_neighbours
from lvsctl.netlink.routes import dump_routes

GROUPS = (1, 3, 5, 7, 9, 11, 24, 25)
"""RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE, IPV4_NETCONF, IPV6_…"""

FOLLOWED = (
    "net.ipv4.ip_forward",
    f"net.ipv4.conf.{state.DEVICE}.arp_ignore",
    f"net.ipv4.conf.{state.DEVICE}.arp_announce",
    f"net.ipv4.conf.{state.DEVICE}.rp_filter",
    "net.ipv6.conf.all.forwarding",
)
"""Sysctls that decide whether packets get through, read each time: few, since files are slow."""

MOST_CONNECTIONS = 20_000
"""Entries of the connection table beyond which it is not read: /proc writes each out as text."""

_WAITING = "SYN_RECV"
_OWN = "/proc/self/ns/net"


@dataclass(slots=True)
class _OpenNode:
    """A node's open namespace. ``inode`` distinguishes it from another of the same name."""

    opened: OpenNamespace
    inode: int
    events: socket.socket
    stale: bool = True
    """Whether the configuration may have changed since it was read."""
    state: NodeState | None = None


class Sampler:
    """The namespaces of ``lab``, open until the end of the ``with``.

    Open namespaces outlive their lab: the caller checks whether it still runs.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.director = lab.directors[0].name
        """The director whose table is read: of several the one that was master last.

        Where several handle requests at the same time, those of all are added up.
        """
        self._nodes: dict[str, _OpenNode] = {}
        self._session = Session(lab.name)
        self._reasons = DropReasons()
        self._dropped: dict[str, int] = {}

    def __enter__(self) -> Self:
        with ExitStack() as failing:
            failing.callback(self.close)
            self._session.raise_file_limit(len(self._lab.nodes))
            netns.in_thread(self._update_nodes)
            self._dropped = self._reasons.__enter__().counts()
            failing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every namespace."""
        for node in tuple(self._nodes):
            self._close_node(node)
        self._reasons.__exit__()
        self._session.__exit__()

    @property
    def event_sockets(self) -> tuple[socket.socket, ...]:
        """Return sockets that become readable when something changes at a node."""
        return tuple(place.events for place in self._nodes.values())

    def take_events(self) -> bool:
        """Read all pending events; return whether there were any."""
        changed = False
        for place in self._nodes.values():
            while _take_event(place.events):
                changed = place.stale = True
        return changed

    def sample(self) -> Sample:
        """Take a sample. Raises HostError without root or IPVS."""
        return netns.in_thread(self._sample)

    # ── in a thread of its own ───────────────────────────────────────────────────────────────

    def _sample(self) -> Sample:
        self._update_nodes()
        states: dict[str, NodeState] = {}
        gauges: dict[str, Gauge] = {}
        table: tuple[ServiceState, ...] = ()
        half_open: HalfOpen | None = frozenset()
        for node, place in self._nodes.items():
            with netns.enter(place.opened.fd):
                states[node] = self._state(node, place)
                gauges[node] = _gauge(states[node])
        links = {node: found.links for node, found in states.items()}
        self.director = master_in(self._lab, links)
        names = [node.name for node in self._lab.directors] if self._lab.ecmp else [self.director]
        for active in (self._nodes[name] for name in names if name in self._nodes):
            with netns.enter(active.opened.fd):
                own = self._table(active.opened)
                half_open = _both(half_open, _half_open(own))
            table = _added_up((*table, *own))
        before, self._dropped = self._dropped, self._reasons.counts()
        dropped = self._reasons.dropped(before)
        return Sample(time.time(), time.monotonic(), states, gauges, table, half_open, dropped)

    def _state(self, node: str, place: _OpenNode) -> NodeState:
        """Read a node's configuration where it may have changed, and its settings always."""
        if place.stale or place.state is None:
            place.stale = False
            sock = place.opened.route
            links = dump_links(sock)
            names = {link.index: link.name for link in links}
            place.state = NodeState(
                netns=self._lab.netns(node),
                links=links,
                routes=dump_routes(sock, names),
                neighbours=dump_neighbours(sock, names),
            )
        place.state = replace(place.state, sysctls=state.settings(FOLLOWED, place.state.links))
        return place.state

    def _table(self, director: OpenNamespace) -> tuple[ServiceState, ...]:
        return ipvs.services(self._session.generic(director))

    def _update_nodes(self) -> None:
        """Open namespaces that are new, close those that are gone or were created again."""
        for node in self._lab.nodes:
            place = self._nodes.get(node.name)
            inode = _inode(self._lab.netns(node.name))
            if place is not None and place.inode == inode:
                continue
            if place is not None:
                self._close_node(node.name)
            if inode is not None:
                with suppress(LabError):  # it went this very moment
                    opened = self._session.open(self._lab.netns(node.name))
                    with netns.enter(opened.fd):
                        self._nodes[node.name] = _OpenNode(opened, inode, _subscribed_socket())

    def _close_node(self, node: str) -> None:
        self._nodes.pop(node).events.close()
        self._session.close(self._lab.netns(node))


def _added_up(tables: Collection[ServiceState]) -> tuple[ServiceState, ...]:
    """Return the services of several directors, each once."""
    same: dict[object, list[ServiceState]] = {}
    for one in tables:
        same.setdefault(one.match, []).append(one)
    return tuple(sum_ for several in same.values() if (sum_ := added_up(several)) is not None)


def _both(some: HalfOpen | None, others: HalfOpen | None) -> HalfOpen | None:
    return None if some is None or others is None else some | others


def _subscribed_socket() -> socket.socket:
    """Open a socket that receives every change in the calling thread's namespace."""
    with ExitStack() as opened:
        sock = opened.enter_context(sockets.open_socket())
        sock.setblocking(False)
        sockets.subscribe(sock, *GROUPS)
        opened.pop_all()
    return sock


def _inode(name: str) -> int | None:
    """Return the inode of a namespace; None where nothing is mounted at its name any more."""
    try:
        found = os.stat(paths.NETNS / name)  # noqa: PTH116 (a hundred times a second)
    except OSError:
        return None
    return found.st_ino if found.st_dev == os.stat(_OWN).st_dev else None  # noqa: PTH116


def _take_event(events: socket.socket) -> bool:
    """Read one event, whatever it is about; return whether there was one."""
    try:
        events.recv(1 << 16)
    except BlockingIOError:
        return False
    except OSError as error:  # ENOBUFS: events were lost, so there was more than one
        if error.errno != errno.ENOBUFS:
            raise
    return True


def _gauge(found: NodeState) -> Gauge:
    wanted = {link.name for link in found.links if link.kind in ("veth", "")} - {"lo"}
    counts = [counts for device, counts in _devices() if device in wanted]
    columns = zip((0, 0, 0, 0), *counts, strict=True)
    received, packets_received, sent, packets_sent = map(sum, columns)
    return Gauge(received, sent, packets_received, packets_sent, counters.read_counters())


def _devices() -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Yield each device of the thread's namespace: bytes and packets received and sent."""
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
        for one in state.read_connections(in_state=_WAITING)
    )
