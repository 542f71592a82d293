"""A table of a packet filter. No plan has one: it was added to the lab by hand."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from lvsctl.model.lab import Lab
from lvsctl.model.packet_filter import NFT_FAMILIES, FilterProgram, FilterRule
from lvsctl.model.state import NodeState
from lvsctl.resources.base import ELSEWHERE, Command, Deviation, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketFilter(Resource):
    """A table with rules, or with a policy other than ACCEPT.

    Only rules that drop or reject every packet of a chain can be applied, by faults: by nftables
    where the kernel has it, as iptables-nft does.
    """

    HINTS: ClassVar[dict[int, str]] = {
        errno.ENOPROTOOPT: "this kernel has no tables of iptables, or they are not loaded: "
        "modprobe ip_tables iptable_filter ipt_REJECT" + ELSEWHERE,
        errno.ENOENT: "modprobe iptable_filter ipt_REJECT" + ELSEWHERE,
    }
    PLANNED: ClassVar[bool] = False

    program: FilterProgram
    table: str
    rules: tuple[FilterRule, ...] = ()

    @property
    def key(self) -> Hashable:
        return PacketFilter, self.netns, self.program, self.table

    def commands(self) -> tuple[Command, ...]:
        """Return the commands that add the rules: to be read, for rules may be told in part."""
        if self.program is FilterProgram.NFT:
            where = self.table.split()
            return tuple(
                self.command("nft", "add", "rule", *where, rule.chain, *rule.text.split())
                for rule in self.rules
            )
        return tuple(
            self.command(rule.tool or self.program, "-t", self.table, *rule.text.split())
            for rule in self.rules
        )

    def undo_commands(self) -> tuple[Command, ...]:
        if self.program is FilterProgram.NFT:
            return (self.command("nft", "delete", "table", *self.table.split()),)
        # The last one first: each is deleted by its number.
        return tuple(self.command(*rule.delete_command()) for rule in reversed(self.rules))

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        tables: dict[tuple[FilterProgram, str], list[FilterRule]] = {}
        for rule in state.packet_filters:
            if rule.foreign:
                tables.setdefault((rule.program, rule.table), []).append(rule)
        for (program, table), rules in tables.items():
            yield cls(netns=state.netns, program=program, table=table, rules=tuple(rules))

    def holds(self, state: NodeState) -> bool:
        return any((one.program, one.table) in self._places for one in self.from_state(state))

    @property
    def _places(self) -> frozenset[tuple[FilterProgram, str]]:
        """The table, and that of iptables-nft in its place."""
        own = (self.program, self.table)
        if self.program not in NFT_FAMILIES:
            return frozenset({own})
        other = f"{NFT_FAMILIES[self.program]} {self.table}"
        return frozenset({own, (FilterProgram.NFT, other)})

    def surplus(self, lab: Lab) -> Deviation | None:
        listed = "; ".join(map(str, self.rules))
        return Deviation(f"a packet filter, not from the topology: {listed}")
