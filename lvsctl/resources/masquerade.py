"""A director's rule that replaces the source of what IPVS sends to a real server."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from lvsctl.model.lab import Lab
from lvsctl.model.packet_filter import OWN, MasqueradeTarget
from lvsctl.model.state import NodeState
from lvsctl.resources.base import ELSEWHERE, Command, Deviation, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Masquerade(Resource):
    """What is sent to ``target`` leaves with the address of the interface that it leaves by.

    A rule of nftables where the kernel has it, else of the legacy table ``nat``; the commands are
    those of iptables(8), of which every host has one or the other.
    """

    HINTS: ClassVar[dict[int, str]] = dict.fromkeys(
        (errno.ENOPROTOOPT, errno.ENOENT, errno.EOPNOTSUPP),
        "this kernel has neither NAT by nftables nor the legacy table nat: modprobe nft_masq, or "
        "modprobe iptable_nat xt_MASQUERADE xt_multiport xt_comment" + ELSEWHERE,
    )

    target: MasqueradeTarget

    def _typed(self, verb: str) -> tuple[Command, ...]:
        to = self.target
        words: list[object] = ["-t", "nat", verb, "POSTROUTING", "-d", to.address]
        words += [
            "-p",
            to.protocol,
            "-m",
            "multiport",
            "--dports",
            to.port,
            "-m",
            "comment",
            "--comment",
            OWN,
        ]
        program = "iptables" if to.address.version == 4 else "ip6tables"
        return (self.command(program, *words, "-j", "MASQUERADE"),)

    @property
    def key(self) -> Hashable:
        return Masquerade, self.netns, self.target

    def commands(self) -> tuple[Command, ...]:
        return self._typed("-A")

    def undo_commands(self) -> tuple[Command, ...]:
        return self._typed("-D")

    def holds(self, state: NodeState) -> bool:
        return not state.whole or self in self.from_state(state)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for rule in state.packet_filters:
            if (target := rule.masquerades) is not None:
                yield cls(netns=state.netns, target=target)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        return Deviation(f"what is sent to {self.text} is not masqueraded", self.why)

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"what is sent to {self.text} is masqueraded, not from the topology")

    @property
    def text(self) -> str:
        """Where packets go that it is about."""
        to = self.target
        return f"{to.address}, {to.protocol} port {to.port}"
