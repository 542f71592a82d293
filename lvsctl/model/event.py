"""Events of progress, for the caller of the engine. Only ``cli`` turns them into text."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class StageStarted(NamedTuple):
    """The stage ``number`` of ``total`` has started.

    It has ``ops`` operations of a plan; 0 where they cannot be counted.
    """

    title: str
    number: int
    total: int
    ops: int = 0


class OpsDone(NamedTuple):
    """``number`` more operations of the current stage are done."""

    number: int


class RollingBack(NamedTuple):
    """Creating ``lab`` failed or was interrupted: what was created is being removed."""

    lab: str


class Restoring(NamedTuple):
    """Changing a running lab failed or was interrupted: its previous state is being restored."""

    lab: str


class Notice(NamedTuple):
    """One line that the user should see on stderr."""

    text: str


Event = StageStarted | OpsDone | RollingBack | Restoring | Notice
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Do nothing: an ``Emit`` for callers that show no progress."""
