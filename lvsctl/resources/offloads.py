"""A link without offloads."""

from __future__ import annotations

from dataclasses import dataclass

from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Command, Deviation, Part, Resource, link_part


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadsOff(Resource):
    """A link that hands over frames as a wire would carry them: checksums in, nothing merged.

    They stay off until the link goes: nothing has to be undone.
    """

    device: str

    @property
    def is_setting(self) -> bool:
        return True

    def commands(self) -> tuple[Command, ...]:
        features = "tx off sg off tso off gso off gro off"
        return (self.command("ethtool", "-K", self.device, *features.split()),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def holds(self, state: NodeState) -> bool:
        link = state.link(self.device)
        return link is None or not link.offloads

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        link = state.link(self.device)
        if link is None or not link.offloads:
            return None
        return Deviation(f"{self.device}: offloads are on: {', '.join(link.offloads)}", self.why)
