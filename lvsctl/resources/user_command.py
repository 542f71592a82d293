"""A command of the user's own on a node (``run:`` in a topology)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lvsctl.model.lab import runs_keepalived
from lvsctl.resources.base import Command, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCommand(Resource):
    """A command that runs in the node's namespace; `run` is a function of the script.

    What it did is not known: neither can it be undone, nor does a state show it.
    """

    UNDOABLE: ClassVar[bool] = False

    node: str
    argv: tuple[str, ...]

    @property
    def runs_keepalived(self) -> bool:
        """Whether it is keepalived."""
        return runs_keepalived(self.argv)

    def commands(self) -> tuple[Command, ...]:
        return (Command(("run", self.netns, *self.argv)),)
