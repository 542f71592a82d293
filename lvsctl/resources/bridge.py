"""The switch of a network: an Ethernet bridge."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import ClassVar

from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import ELSEWHERE, Command, Deviation, Part, Resource, link_part
from lvsctl.resources.link_up import is_up, link_deviation


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge(Resource):
    """A bridge without an address, up."""

    HINTS: ClassVar[dict[int, str]] = {errno.EOPNOTSUPP: "modprobe bridge" + ELSEWHERE}

    device: str
    index: int

    def commands(self) -> tuple[Command, ...]:
        return (
            self.command(
                *("ip", "link", "add", "name", self.device, "index", self.index, "type", "bridge"),
                *("mcast_snooping", 0, "vlan_default_pvid", 0),
            ),
            self.command("ip", "link", "set", "dev", self.device, "up"),
        )

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("ip", "link", "del", "dev", self.device),)

    def provides(self) -> frozenset[Part]:
        return frozenset({link_part(self.netns, self.device)})

    def holds(self, state: NodeState) -> bool:
        link = state.link(self.device)
        return link is not None and link.kind in ("bridge", "") and is_up(state, self.device)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        return link_deviation(state, self.device, self.why)
