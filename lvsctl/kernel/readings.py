"""What is read of every namespace of a lab right before requests are sent, and right after.

Each namespace is entered once for all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from lvsctl.kernel import counters, netns, packet_filters, state
from lvsctl.model.packet_filter import FilterRule
from lvsctl.model.state import NodeState


class Readings(NamedTuple):
    """By namespace: nstat's counters of nodes, and the packet filters of nodes and switches."""

    counters: dict[str, dict[str, int]]
    packet_filters: dict[str, tuple[FilterRule, ...]]


def read_before(
    nodes: Iterable[str], switches: Iterable[str], directors: Collection[str]
) -> tuple[dict[str, NodeState], Readings]:
    """Read what nodes have learnt, flush it, and read the counters and packet filters.

    Returns by namespace the neighbours, and of ``directors`` the connections; then the rest.
    Raises LabError if a namespace does not exist, HostError without root.
    """

    def visits() -> tuple[dict[str, NodeState], Readings]:
        learnt: dict[str, NodeState] = {}
        found = Readings({}, {})
        for name in netns.each(nodes):
            indexes, neighbours = state.read_neighbours()
            connections = state.read_connections() if name in directors else ()
            learnt[name] = NodeState(name, neighbours=neighbours, connections=connections)
            state.flush(indexes, neighbours)
            found.counters[name] = counters.read_counters()
            found.packet_filters[name] = packet_filters.current_filters()
        _read_filters(found, switches)
        return learnt, found

    return netns.in_thread(visits)


def read_after(nodes: Iterable[str], switches: Iterable[str]) -> Readings:
    """Read the counters of ``nodes``, and the packet filters of both. Raises as ``read_before``."""

    def visits() -> Readings:
        found = Readings({}, {})
        for name in netns.each(nodes):
            found.counters[name] = counters.read_counters()
            found.packet_filters[name] = packet_filters.current_filters()
        _read_filters(found, switches)
        return found

    return netns.in_thread(visits)


def _read_filters(found: Readings, switches: Iterable[str]) -> None:
    for name in netns.each(switches):
        found.packet_filters[name] = packet_filters.current_filters()


def flush_learnt(found: NodeState) -> None:
    """Flush what a node has learnt, in the calling thread's namespace, whose state was read."""
    state.flush({link.name: link.index for link in found.links}, found.neighbours)
