"""What is read of every namespace of a lab right before requests are sent, and right after.

Each namespace is entered once for all of it. What requests do not change is read meanwhile.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import NamedTuple

from lvsctl.kernel import counters, netns, packet_filters, state
from lvsctl.model.packet_filter import FilterRule
from lvsctl.model.state import NodeState, QdiscState
from lvsctl.netlink import devices, queueing, sockets
from lvsctl.netlink.neighbours import dump_neighbours


class Readings(NamedTuple):
    """By namespace; of switches what drops frames only."""

    learnt: dict[str, NodeState]
    """The neighbours of nodes; of directors also the IPVS table and its connections."""
    counters: dict[str, dict[str, int]]
    """nstat's."""
    packet_filters: dict[str, tuple[FilterRule, ...]]
    qdiscs: dict[str, tuple[QdiscState, ...]]

    def latest(self, found: NodeState) -> NodeState:
        """Return a state that was read before these, with what is in them."""
        name = found.netns
        found = replace(found, packet_filters=self.packet_filters[name], qdiscs=self.qdiscs[name])
        learnt = self.learnt.get(name)
        if learnt is None:
            return found
        return replace(
            found,
            neighbours=learnt.neighbours,
            services=learnt.services,
            connections=learnt.connections,
        )


def read_and_flush(
    nodes: Iterable[str], switches: Iterable[str], directors: Collection[str]
) -> Readings:
    """Read all of that, and flush what nodes have learnt: neighbours, and path MTUs.

    Raises LabError if a namespace does not exist, HostError without root or IPVS.
    """

    def visits() -> Readings:
        found = Readings({}, {}, {}, {})
        for name in netns.each(nodes):
            with sockets.open_reader() as sock:
                names = _read_drops(found, name, sock)
                learnt = NodeState(name, neighbours=dump_neighbours(sock, names))
            if name in directors:
                learnt = state.with_ipvs_table(learnt)
            found.learnt[name] = learnt
            found.counters[name] = counters.read_counters()
            state.flush({known: index for index, known in names.items()}, learnt.neighbours)
        for name in netns.each(switches):
            with sockets.open_reader() as sock:
                _read_drops(found, name, sock)
        return found

    return netns.in_thread(visits)


def _read_drops(found: Readings, name: str, sock: socket.socket) -> dict[int, str]:
    """Read what drops frames in the calling thread's namespace; return its devices by index."""
    names = {one.ifindex: one.name for one in devices.dump_names(sock)}
    found.qdiscs[name], _ = queueing.dump_qdiscs(sock, names)
    found.packet_filters[name] = packet_filters.current_filters()
    return names
