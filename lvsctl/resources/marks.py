"""Firewall marks that a director gives to packets of a virtual service before IPVS sees them."""

from __future__ import annotations

import errno
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab
from lvsctl.model.service import PortRange, Protocol
from lvsctl.model.state import FilterState, NodeState
from lvsctl.resources.base import (
    ELSEWHERE,
    Command,
    Deviation,
    Part,
    Resource,
    link_part,
)
from lvsctl.resources.qdisc import Qdisc

_CLSACT = "clsact"


class Marking(NamedTuple):
    """Packets that get a mark: of one protocol, to one address, and to some or all ports of it."""

    mark: int
    vip: IPAddress
    protocol: Protocol
    ports: PortRange | None = None

    @property
    def family(self) -> str:
        """The address family as tc(8) calls it."""
        return "ipv6" if self.vip.version == 6 else "ip"

    def match(self) -> tuple[str, ...]:
        """Return what it matches, in tc-flower(8)'s words."""
        words = (f"ip_proto {self.protocol}", f"dst_ip {self.vip}")
        return (*words, f"dst_port {self.ports}") if self.ports is not None else words


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks(Resource):
    """What comes in at ``device`` is marked (tc-flower(8), tc-skbedit(8)).

    With tc rather than a packet filter: every kernel that lvsctl runs on has it, User-Mode Linux
    too, which has no nftables; and it comes before any packet filter's rules.
    """

    HINTS: ClassVar[dict[int, str]] = {
        errno.ENOENT: "modprobe cls_flower act_skbedit" + ELSEWHERE,
        errno.EOPNOTSUPP: "modprobe sch_ingress cls_flower act_skbedit" + ELSEWHERE,
    }

    device: str
    markings: tuple[Marking, ...]

    @property
    def key(self) -> Hashable:
        return Qdisc, self.netns, self.device, _CLSACT

    def commands(self) -> tuple[Command, ...]:
        adding = self.command("tc", "qdisc", "add", "dev", self.device, _CLSACT)
        return adding, *self.filter_commands(self.markings)

    def filter_commands(self, some: Collection[Marking]) -> tuple[Command, ...]:
        """Return the commands that add the filters of some of the markings."""
        numbered = enumerate(self.markings, 1)
        return tuple(self._filter(number, one) for number, one in numbered if one in some)

    def _filter(self, number: int, one: Marking) -> Command:
        place = f"pref {number} protocol {one.family}"
        match = " ".join(one.match())
        words = f"tc filter add dev {self.device} ingress {place} flower {match}"
        return self.command(*words.split(), "action", "skbedit", "mark", one.mark)

    def edit_commands(self) -> tuple[Command, ...]:
        return (*self.undo_commands(), *self.commands())

    def undo_commands(self) -> tuple[Command, ...]:
        return (self.command("tc", "qdisc", "del", "dev", self.device, _CLSACT),)

    def rests_on(self) -> frozenset[Part]:
        return Resource.rests_on(self) | {link_part(self.netns, self.device)}

    def holds(self, state: NodeState) -> bool:
        return not state.whole or self._found(state) == self._wanted()

    def _wanted(self) -> list[FilterState]:
        return [
            FilterState(
                device=self.device,
                parent="ingress",
                kind="flower",
                preference=number,
                protocol=one.family,
                actions=(f"mark {one.mark}",),
                match=one.match(),
            )
            for number, one in enumerate(self.markings, 1)
        ]

    def _found(self, state: NodeState) -> list[FilterState]:
        of_device = (one for one in state.filters if one.device == self.device)
        return sorted(of_device, key=lambda one: (one.parent, one.preference))

    def only_lacks(self, state: NodeState) -> bool:
        """Return whether some filters are missing, and those that are there are right."""
        there = any((one.device, one.parent) == (self.device, _CLSACT) for one in state.qdiscs)
        wanted = self._wanted()
        return there and all(one in wanted for one in self._found(state))

    def missing(self, state: NodeState) -> tuple[Marking, ...]:
        """Return what is not marked, or otherwise, in a state that was read as a whole."""
        found = {(one.match, one.actions) for one in self._found(state)}
        return tuple(
            one for one in self.markings if (one.match(), (f"mark {one.mark}",)) not in found
        )

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        missing = [f"{' '.join(one.match())} as {one.mark}" for one in self.missing(state)]
        text = f"{self.device} does not mark {', '.join(missing)}"
        if not missing:
            text = f"{self.device} has filters besides those that mark"
        return Deviation(text, self.why)
