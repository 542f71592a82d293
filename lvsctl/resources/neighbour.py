"""A static entry of the ARP or ND cache. Only faults set any."""

from __future__ import annotations

from dataclasses import dataclass

from lvsctl.model.addresses import IPAddress
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Command, Part, Resource, link_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour(Resource):
    """A permanent entry: ``address`` is sent to ``mac``, without an ARP request."""

    device: str
    address: IPAddress
    mac: str

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
