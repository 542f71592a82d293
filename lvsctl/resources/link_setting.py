"""A setting of a device: a flag, the MTU, a parameter of a bridge or of its port."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Self

from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Command, Deviation, Part, Resource, link_part


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSetting(Resource):
    """``name`` of a device is ``value``; ``usual`` is what a new device of its kind has.

    ``group`` is ``link`` (any device), ``bridge``, or ``port`` (of a bridge). Parameters of a
    tunnel are part of the tunnel (``Tunnel``).
    """

    device: str
    name: str
    value: str
    group: str = "link"
    usual: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        return LinkSetting, self.netns, self.device, self.group, self.name

    @property
    def is_setting(self) -> bool:
        return True

    def _set(self, value: str) -> tuple[Command, ...]:
        if self.group == "port":
            return (self.command("bridge", "link", "set", "dev", self.device, self.name, value),)
        kind = ("type", "bridge") if self.group == "bridge" else ()
        words = ("ip", "link", "set", "dev", self.device, *kind, self.name, value)
        return (self.command(*words),)

    def commands(self) -> tuple[Command, ...]:
        return self._set(self.value)

    def undo_commands(self) -> tuple[Command, ...]:
        return self._set(self.usual)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def holds(self, state: NodeState) -> bool:
        link = state.link(self.device)
        return link is not None and (link.setting(self.name) or self.usual) == self.value

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for link in state.links:
            for one in link.settings:
                if one.group != "tunnel":
                    yield cls(
                        netns=state.netns,
                        device=link.name,
                        name=one.name,
                        value=one.value,
                        group=one.group,
                        usual=one.usual,
                    )

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        return Deviation(f"{self.device}: {self.name} is not {self.value}", self.why)

    def surplus(self, lab: Lab) -> Deviation | None:
        if self.name == "address":
            return Deviation(f"{self.device} has a node's MAC address, {self.value}")
        return Deviation(f"{self.device}: {self.name} is {self.value}, not {self.usual}")
