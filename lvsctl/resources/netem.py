"""An impairment of what a link sends."""

from __future__ import annotations

import errno
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from lvsctl.model.lab import Impairment, Lab
from lvsctl.model.state import NodeState
from lvsctl.resources.base import (
    ELSEWHERE,
    Command,
    Deviation,
    Part,
    Resource,
    States,
    link_part,
)
from lvsctl.resources.qdisc import Qdisc, netem_key


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
        return netem_key(self.netns, self.device)

    def commands(self) -> tuple[Command, ...]:
        words = ["tc", "qdisc", "replace", "dev", self.device, "root", "netem"]
        if self.impairment.delay:
            words += ["delay", f"{self.impairment.delay:g}ms"]
        if self.impairment.jitter:
            words += [f"{self.impairment.jitter:g}ms"]
        for name in ("loss", "reorder", "duplicate", "corrupt"):
            if share := getattr(self.impairment, name):
                words += [name, f"{share:g}%"]
        if self.impairment.rate:
            words += ["rate", f"{self.impairment.rate}bit"]
        return (self.command(*words),)

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("tc", "qdisc", "del", "dev", self.device, "root"),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def holds(self, state: NodeState) -> bool:
        link = state.link(self.device)
        if link is None or link.impairment != self.impairment:
            return False
        return not (state.whole and self._otherwise(state))

    def _otherwise(self, state: NodeState) -> tuple[Qdisc, ...]:
        """Return the netem of the device where it has options that are not wanted here."""
        return tuple(
            one
            for one in Qdisc.from_state(state)
            if one.key == self.key and not all(map(self._wants, one.options))
        )

    def _wants(self, option: str) -> bool:
        """Whether an option is of the kind that is wanted; of what extent is compared apart."""
        word, _, value = option.partition(" ")
        if word == "gap":  # tc sets it with reorder
            return value == "1" and bool(self.impairment.reorder)
        return bool(getattr(self.impairment, word, 0))

    def in_the_way(self, states: States) -> tuple[Resource, ...]:
        """Return a netem with other options: they stay where it is replaced."""
        state = states.get(self.netns)
        return () if state is None else self._otherwise(state)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        found = ", ".join(word for one in self._otherwise(state) for word in one.options)
        more = f": {found}" if found else ""
        return Deviation(f"{self.device} is not impaired as configured{more}", self.why)
