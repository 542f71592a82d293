"""A link that is up."""

from __future__ import annotations

from dataclasses import dataclass

from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Command, Deviation, Part, Resource, link_part


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUp(Resource):
    """A link that exists already, such as lo, up."""

    device: str

    @property
    def is_setting(self) -> bool:
        return True

    def commands(self) -> tuple[Command, ...]:
        return (self.command("ip", "link", "set", "dev", self.device, "up"),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("ip", "link", "set", "dev", self.device, "down"),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def holds(self, state: NodeState) -> bool:
        return is_up(state, self.device)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        return link_deviation(state, self.device, self.why)


def is_up(state: NodeState, device: str) -> bool:
    """Return whether a link exists and is up."""
    link = state.link(device)
    return link is not None and link.up


def link_deviation(state: NodeState, device: str, why: str) -> Deviation | None:
    """Say that a link is missing or down; None: it is up."""
    link = state.link(device)
    if link is not None and link.up:
        return None
    return Deviation(f"{device} is {'down' if link is not None else 'missing'}", why)
