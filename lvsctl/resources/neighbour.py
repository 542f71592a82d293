"""Entries of the ARP or ND cache that were set and not learned, or learned and wrong."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Self

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Command, Deviation, Part, Resource, link_part

SET = frozenset({"permanent", "noarp"})
"""States of an entry that does not expire: it was set by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour(Resource):
    """A permanent entry: ``address`` is sent to ``mac``, without an ARP request."""

    device: str
    address: IPAddress
    mac: str

    @property
    def key(self) -> Hashable:
        return Neighbour, self.netns, self.device, self.address

    def commands(self) -> tuple[Command, ...]:
        return (self.command("ip", "neigh", "replace", *self._entry(), "nud", "permanent"),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("ip", "neigh", "del", *self._entry()),)

    def _entry(self) -> tuple[object, ...]:
        return self.address, "lladdr", self.mac, "dev", self.device

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def holds(self, state: NodeState) -> bool:
        return any(
            (one.address, one.device, one.mac, one.state)
            == (self.address, self.device, self.mac, "permanent")
            for one in state.neighbours
        )

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        noarp = {link.name for link in state.links if link.noarp}
        for one in state.neighbours:
            if one.state in SET and (one.state == "permanent" or one.device not in noarp):
                yield cls(netns=state.netns, device=one.device, address=one.address, mac=one.mac)

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(
            f"{self.address} is bound to {self.mac or 'no MAC address'} on {self.device}, "
            "without ARP or ND"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LearntNeighbour(Resource):
    """An entry that was learned, and is not the MAC address that the topology's node has."""

    PLANNED: ClassVar[bool] = False

    device: str
    address: IPAddress
    mac: str
    right: str = field(compare=False)

    def commands(self) -> tuple[Command, ...]:
        what = f"neighbour {self.address} lladdr {self.mac} dev {self.device}"
        return (Command((), self.netns, comment=what),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("ip", "neigh", "del", self.address, "dev", self.device),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def holds(self, state: NodeState) -> bool:
        return any(
            (one.address, one.device, one.mac) == (self.address, self.device, self.mac)
            for one in state.neighbours
        )

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"{self.address} is {self.mac} on {self.device}, not {self.right}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyNeighbour(Resource):
    """An address that the node answers ARP or ND for in place of its owner."""

    device: str
    address: IPAddress

    def commands(self) -> tuple[Command, ...]:
        return (self._typed("add"),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self._typed("del"),)

    def _typed(self, verb: str) -> Command:
        return self.command("ip", "neigh", verb, "proxy", self.address, "dev", self.device)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def holds(self, state: NodeState) -> bool:
        return self in self.from_state(state)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for one in state.proxies:
            yield cls(netns=state.netns, device=one.device, address=one.address)

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"{self.device}: answers for {self.address} as a proxy")
