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
    """By namespace: what a node had learnt (neighbours, a director's connections), nstat's
    counters of nodes, and the packet filters of nodes and switches.
    """  # fmt: skip

    learnt: dict[str, NodeState]
    counters: dict[str, dict[str, int]]
    packet_filters: dict[str, tuple[FilterRule, ...]]


def read_before(
    nodes: Iterable[str], switches: Iterable[str], directors: Collection[str]
) -> Readings:
    """Read what nodes have learnt, flush it, and read the counters and packet filters.

    Raises LabError if a namespace does not exist, HostError without root.
    """

    def visits() -> Readings:
        found = Readings({}, {}, {})
        for name in netns.each(nodes):
            indexes, neighbours = state.read_neighbours()
            connections = state.read_connections() if name in directors else ()
            found.learnt[name] = NodeState(name, neighbours=neighbours, connections=connections)
            state.flush(indexes, neighbours)
            found.counters[name] = counters.read_counters()
            found.packet_filters[name] = packet_filters.current_filters()
        for name in netns.each(switches):
            found.packet_filters[name] = packet_filters.current_filters()
        return found

    return netns.in_thread(visits)


class ReadingsAfter:
    """For ``state.lab_state``: in each namespace read a node's counters, and flush what it has
    learnt once its state was read.
    """  # fmt: skip

    def __init__(self, nodes: Collection[str]) -> None:
        self._nodes = nodes
        self.counters: dict[str, dict[str, int]] = {}

    def __call__(self, found: NodeState) -> None:
        """Do it in the calling thread's namespace, of which ``found`` is the state."""
        if found.netns in self._nodes:
            self.counters[found.netns] = counters.read_counters()
            state.flush({link.name: link.index for link in found.links}, found.neighbours)
