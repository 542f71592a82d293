"""What a fault does to a running lab, as data: one thing changed, and how to undo it.

A change holds an operation as the lab has it and one as the fault leaves it. So the
restoring of a fault is not written down anywhere: it is the same change, reversed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lvsctl.resources.base import Command, Resource, States


@dataclass(frozen=True, slots=True)
class Change:
    """``before`` is what the lab has, ``after`` what the fault makes of it; None: nothing."""

    before: Resource | None
    after: Resource | None

    @property
    def reverse(self) -> Change:
        """The change that undoes this one."""
        return Change(self.after, self.before)

    @property
    def in_place(self) -> bool:
        """Whether both are about the same thing, so that applying the one replaces the other."""
        if self.before is None or self.after is None:
            return False
        return self.before.key == self.after.key

    def fitted(self, states: States) -> Change:
        """Return it with the commands for the kernel of ``states``, where kernels differ."""
        before, after = self.before, self.after
        return Change(
            before.fitted(states) if before is not None else None,
            after.fitted(states) if after is not None else None,
        )

    def commands(self) -> tuple[str, ...]:
        """Return the shell commands that a person would have typed."""
        typed: list[Command] = []
        if self.before is not None and not self.in_place:
            typed += self.before.undo_commands()
        if self.after is not None:
            after = self.after
            typed += after.edit_commands() if self.in_place else after.commands()
        return tuple(map(str, typed))


def removed(resource: Resource) -> Change:
    """Return the change that removes what the lab has."""
    return Change(resource, None)


def added(resource: Resource) -> Change:
    """Return the change that adds what the lab does not have."""
    return Change(None, resource)


def reversed_(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Return what undoes ``changes``: the last one first."""
    return tuple(change.reverse for change in reversed(tuple(changes)))
