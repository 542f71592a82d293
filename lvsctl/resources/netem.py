"""An impairment of what a link sends."""

from __future__ import annotations

import errno
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from lvsctl.model.lab import Impairment, Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import ELSEWHERE, Command, Deviation, Part, Resource, link_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Netem(Resource):
    """What leaves ``device`` is delayed, lost or slowed down (tc-netem(8))."""

    HINTS: ClassVar[dict[int, str]] = {
        errno.ENOENT: "modprobe sch_netem" + ELSEWHERE,
        errno.EOPNOTSUPP: "modprobe sch_netem" + ELSEWHERE,
    }

    device: str
    impairment: Impairment

    @property
    def key(self) -> Hashable:
        return Netem, self.netns, self.device

    def commands(self) -> tuple[Command, ...]:
        words = ["tc", "qdisc", "replace", "dev", self.device, "root", "netem"]
        if self.impairment.delay:
            words += ["delay", f"{self.impairment.delay:g}ms"]
        if self.impairment.loss:
            words += ["loss", f"{self.impairment.loss:g}%"]
        if self.impairment.rate:
            words += ["rate", f"{self.impairment.rate}bit"]
        return (self.command(*words),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("tc", "qdisc", "del", "dev", self.device, "root"),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def holds(self, state: NodeState) -> bool:
        link = state.link(self.device)
        return link is not None and link.impairment == self.impairment

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        return Deviation(f"{self.device} is not impaired as configured", self.why)
