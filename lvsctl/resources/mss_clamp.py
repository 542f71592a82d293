"""A node's rule that limits the segment size which TCP's ends announce through it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from lvsctl.model.lab import Lab
from lvsctl.model.packet_filter import OWN, TO_PATH_MTU, Clamp
from lvsctl.model.state import NodeState
from lvsctl.resources.base import ELSEWHERE, Command, Deviation, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class MssClamp(Resource):
    """The SYNs that leave the node, in both directions, announce segments of at most a size.

    A rule of nftables where the kernel has it, else of the legacy table ``mangle``; the commands
    are those of iptables(8), of which every host has one or the other.
    """

    HINTS: ClassVar[dict[int, str]] = dict.fromkeys(
        (errno.ENOPROTOOPT, errno.ENOENT, errno.EOPNOTSUPP),
        "this kernel changes the segment size neither by nftables nor by the legacy table mangle: "
        "modprobe nft_exthdr, or modprobe iptable_mangle xt_TCPMSS xt_tcpudp xt_comment"
        + ELSEWHERE,
    )

    clamp: Clamp

    def _typed(self, verb: str) -> tuple[Command, ...]:
        program = "iptables" if self.clamp.version == 4 else "ip6tables"
        words: list[object] = ["-t", "mangle", verb, "POSTROUTING", "-p", "tcp", "-m", "tcp"]
        words += ["--tcp-flags", "SYN,RST", "SYN", "-m", "comment", "--comment", OWN]
        to_path = self.clamp.size == TO_PATH_MTU
        limit = ("--clamp-mss-to-pmtu",) if to_path else ("--set-mss", self.clamp.size)
        return (self.command(program, *words, "-j", "TCPMSS", *limit),)

    def commands(self) -> tuple[Command, ...]:
        return self._typed("-A")

    def undo_commands(self) -> tuple[Command, ...]:
        return self._typed("-D")

    def holds(self, state: NodeState) -> bool:
        return not state.whole or self in self.from_state(state)

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for rule in state.packet_filters:
            if (clamp := rule.clamps) is not None:
                yield cls(netns=state.netns, clamp=clamp)

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        return Deviation(f"the segment size of TCP is not limited to {self.text}", self.why)

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"the segment size of TCP is limited to {self.text}, not by the topology")

    @property
    def text(self) -> str:
        """The limit, with the IP version."""
        return self.clamp.text
