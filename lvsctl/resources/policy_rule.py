"""A rule of policy routing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState, RuleState
from lvsctl.resources.base import Command, Deviation, Resource

USUAL = (
    (4, 0, "from all lookup local"),
    (4, 32766, "from all lookup main"),
    (4, 32767, "from all lookup default"),
    (6, 0, "from all lookup local"),
    (6, 32766, "from all lookup main"),
)
"""The rules of every namespace: IP version, preference, words (net/ipv4/fib_rules.c and v6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule(Resource):
    """A rule in ip-rule(8)'s words: selectors, then `lookup TABLE` or another action.

    ``raw`` is the rule as the kernel reported it, where it was read.
    """

    version: int = 4
    preference: int
    text: str
    raw: str = field(default="", compare=False)

    @property
    def state(self) -> RuleState:
        """The rule as the kernel has it."""
        return RuleState(self.version, self.preference, self.text, self.raw)

    def _typed(self, verb: str) -> tuple[Command, ...]:
        family = ("-6",) if self.version == 6 else ()
        words = (*family, "rule", verb, "pref", self.preference, *self.text.split())
        return (self.command("ip", *words),)

    def commands(self) -> tuple[Command, ...]:
        return self._typed("add")

    def undo_commands(self) -> tuple[Command, ...]:
        return self._typed("del")

    def holds(self, state: NodeState) -> bool:
        return not state.whole or self in self._all(state)

    @classmethod
    def _all(cls, state: NodeState) -> Iterator[Self]:
        for one in state.rules:
            yield cls(
                netns=state.netns,
                version=one.version,
                preference=one.preference,
                text=one.text,
                raw=one.raw,
            )

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        for one in cls._all(state):
            if (one.version, one.preference, one.text) not in USUAL:
                yield one

    @classmethod
    def usual(cls, state: NodeState) -> Iterator[Self]:
        """Yield the rules that every namespace has, of the IP versions that it has."""
        versions = {4, *(one.version for one in state.rules)}
        for version, preference, text in USUAL:
            if version in versions:
                yield cls(
                    netns=state.netns,
                    version=version,
                    preference=preference,
                    text=text,
                    why="a rule of every namespace",
                )

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        return Deviation(f"the rule {self._named()} is missing", self.why)

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"the rule {self._named()} is not from the topology")

    def _named(self) -> str:
        version = "IPv6: " if self.version == 6 else ""
        return f"`{version}{self.preference}: {self.text}`"
