"""What a fault does to a running lab, as data: one thing changed, and the way back.

A change holds an operation as the lab has it and one as the fault leaves it. So the
restoring of a fault is not written down anywhere: it is the same change, reversed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lvsctl.resources.fault_ops import AddNeighbour, DropIncoming
from lvsctl.resources.ops import (
    AddAddress,
    AddLink,
    AddRealServer,
    AddRoute,
    AddService,
    AddTunnel,
    DisableOffloads,
    Listen,
    Op,
    SetLinkUp,
    edit,
    subject,
)


@dataclass(frozen=True, slots=True)
class Change:
    """``before`` is what the lab has, ``after`` what the fault makes of it; None: nothing there."""

    before: Op | None
    after: Op | None

    @property
    def reverse(self) -> Change:
        """The change that takes this one back."""
        return Change(self.after, self.before)

    @property
    def in_place(self) -> bool:
        """Whether both are about the same thing, so that making the one replaces the other."""
        if self.before is None or self.after is None:
            return False
        return subject(self.before) == subject(self.after)

    def commands(self) -> tuple[str, ...]:
        """The shell commands that a person would have typed."""
        typed: list[str] = []
        if self.before is not None and not self.in_place and not _goes_along(self.before):
            typed.append(_removal(self.before))
        if self.after is not None:
            typed += edit(self.after)[:1] if self.in_place else self.after.describe()
        return tuple(typed)


def removed(op: Op) -> Change:
    """What the lab has is taken away."""
    return Change(op, None)


def added(op: Op) -> Change:
    """What the lab has not got is there."""
    return Change(None, op)


def reversed_(changes: Iterable[Change]) -> tuple[Change, ...]:
    """What takes ``changes`` back: the last one first."""
    return tuple(change.reverse for change in reversed(tuple(changes)))


_DELETE: tuple[tuple[type[Op], str, str], ...] = (
    (AddAddress, " addr add ", " addr del "),
    (AddRoute, " route add ", " route del "),
    (AddNeighbour, " neigh replace ", " neigh del "),
)


def _goes_along(op: Op) -> bool:
    """Whether it is gone with its device, so that nobody types anything for it."""
    return isinstance(op, DisableOffloads)


def _removal(op: Op) -> str:  # noqa: PLR0911 (a row for each kind)
    """The command that takes ``op`` away. Raises NotImplementedError for what no fault removes."""
    command = op.describe()[0]
    for kind, word, other in _DELETE:
        if isinstance(op, kind):
            return command.replace(word, other, 1).removesuffix(" nud permanent")
    match op:
        case AddService():
            return command.partition(" -s ")[0].replace(" -A ", " -D ", 1)
        case AddRealServer():
            server, flags, _ = command.replace(" -a ", " -d ", 1).partition(" -r ")
            return server + flags + op.describe()[0].partition(" -r ")[2].split()[0]
        case SetLinkUp() | AddTunnel():
            return f"ip -n {op.netns} link set dev {op.device} down"
        case AddLink():
            return f"ip -n {op.netns} link del dev {op.port}"
        case DropIncoming():
            return op.describe_removal()
        case Listen():
            return f"# {op.node}: stop the server on {op.protocol} port {op.port}"
    raise NotImplementedError(type(op).__name__)
