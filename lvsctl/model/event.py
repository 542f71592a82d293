"""What the engine tells while it works. Only ``report`` and ``cli`` turn events into text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StageBegun:
    """A stage of a plan is being carried out: ``number`` of ``total``."""

    title: str
    number: int
    total: int
    ops: int


@dataclass(frozen=True, slots=True)
class OpsDone:
    """``count`` more operations of the current stage are done."""

    count: int


@dataclass(frozen=True, slots=True)
class Undoing:
    """Something failed or was interrupted: what was made is being removed."""

    reason: str


@dataclass(frozen=True, slots=True)
class GoingBack:
    """Changing a running lab failed or was interrupted: it is being made what it was."""

    lab: str


@dataclass(frozen=True, slots=True)
class Notice:
    """One line that the user should see on stderr."""

    text: str


Event = StageBegun | OpsDone | Undoing | GoingBack | Notice
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """An ``Emit`` for callers that do not watch."""
