"""What is counted in a lab while it is loaded: what clients received, and what directors did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lvsctl.kernel.traffic_counters import Moment, NodeCounts
from lvsctl.model.lab import Lab, Node
from lvsctl.model.scale import DirectorLoad
from lvsctl.model.service import VirtualService
from lvsctl.plan.capacity import Way
from lvsctl.resources.ipvs_real_server import IpvsRealServer


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure; see ``model.scale.Load``. ``connections`` 0: as many as the tool needs."""

    connections: int = 0
    reply: int = 4096
    warm_up: float = 1.5
    seconds: float = 1.0
    windows: int = 3


@dataclass(frozen=True, slots=True)
class MeasuredLab:
    """A running lab whose ``service`` is asked by ``clients``; ``paths`` of replies by server."""

    lab: Lab
    service: VirtualService
    clients: tuple[Node, ...]
    entries: tuple[IpvsRealServer, ...]
    paths: dict[str, tuple[Way, ...]]
    settings: Settings

    @property
    def namespaces(self) -> tuple[str, ...]:
        nodes = (*self.clients, *self.lab.directors)
        return tuple(self.lab.netns(node.name) for node in nodes)

    def received(self, before: Moment, after: Moment) -> tuple[int, int]:
        """Return the bytes and packets that the clients received between two moments."""
        return self._grown(self.clients, before, after)[:2]

    def director_load(self, before: Moment, after: Moment, use: tuple[str, float]) -> DirectorLoad:
        """Return what the directors did between two moments, for what the clients received."""
        taken, packets = self.received(before, after)
        into, packets_in, out, packets_out = self._grown(self.lab.directors, before, after)
        ipvs = [0, 0]
        for node in self.lab.directors:
            first, last = (one.nodes[self.lab.netns(node.name)] for one in (before, after))
            ipvs[0] += last.ipvs_in - first.ipvs_in
            ipvs[1] += last.ipvs_out - first.ipvs_out
        each = max(taken, 1)
        return DirectorLoad(
            bytes=round((into + out) / each, 3),
            packets=round((packets_in + packets_out) / max(packets, 1), 3),
            sent=round(out / each, 4),
            ipvs_in=round(ipvs[0] / each, 4),
            ipvs_out=round(ipvs[1] / each, 4),
            busiest=use[0],
            use=use[1],
        )

    def link_use(self, before: Moment, after: Moment) -> tuple[str, float]:
        """Return the director's link with the highest share of its rate in use, and that share."""
        found = [("", 0.0)]
        for node in self.lab.directors:
            name = self.lab.netns(node.name)
            for interface in node.interfaces:
                rate = self.lab.impairment_of(node, interface.network).rate
                if rate:
                    grown = _sent(after.nodes[name], interface.network) - _sent(
                        before.nodes[name], interface.network
                    )
                    share = grown * 8 / (after.when - before.when) / rate
                    found.append((f"{node.name} on {interface.network}", round(share, 3)))
        return max(found, key=lambda one: one[1])

    def _grown(
        self, nodes: Sequence[Node], before: Moment, after: Moment
    ) -> tuple[int, int, int, int]:
        total = [0, 0, 0, 0]
        for node in nodes:
            name = self.lab.netns(node.name)
            for device, last in after.nodes[name].interfaces.items():
                first = before.nodes[name].interfaces.get(device)
                if first is not None and device in node.networks:
                    for position in range(4):
                        total[position] += last[position] - first[position]
        return total[0], total[1], total[2], total[3]


def _sent(node: NodeCounts, interface: str) -> int:
    return node.interfaces[interface].sent
