"""A drill: what happens to a lab at which time, and what is expected. Frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Verb(StrEnum):
    """What a step does."""

    WEIGHT = "weight"
    DELETE = "delete"
    ADD = "add"
    STOP = "stop"
    START = "start"
    SYSCTL = "sysctl"
    INJECT = "fault inject"
    RESTORE = "fault restore"
    KILL = "kill"
    CUT = "cut"
    BACK = "back"


@dataclass(frozen=True, slots=True)
class DrillStep:
    """At ``at`` seconds since the beginning, ``verb`` with ``words``. ``key`` is its key in the
    file, and ``index`` its place in a list there."""

    at: float
    verb: Verb
    words: tuple[str, ...]
    key: str = ""
    index: int = 0

    @property
    def text(self) -> str:
        """The step as it is written."""
        return " ".join((str(self.verb), *self.words))


class Measure(StrEnum):
    """What can be expected of a drill."""

    LOST = "lost"
    """Requests that were not answered."""
    LATE = "late"
    """Requests that were answered, but not at once: a packet had to be sent again."""
    OUTAGE = "outage"
    """The longest time without an answer that came at once."""
    BROKEN = "broken"
    """Connections that were held and ended."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a measure may be at most. ``value`` is a number, a share (0 to 1) or seconds.

    ``below``: it must be less. ``text`` is how it is written.
    """

    value: float
    share: bool
    below: bool
    text: str


@dataclass(frozen=True, slots=True)
class Drill:
    """A drill as its file has it. ``rate`` in requests per second, ``length`` in seconds.

    ``hold`` connections are open from the beginning. ``topology``, ``service`` and ``client`` are
    names; empty: none, the first that fits, the first. ``inside``: it is in a topology's file,
    and played in the lab of that.
    """

    source: str
    steps: tuple[DrillStep, ...]
    length: float
    rate: float = 20.0
    hold: int = 2
    service: str = ""
    client: str = ""
    topology: str = ""
    description: str = ""
    expect: Mapping[Measure, Limit] = field(default_factory=dict)
    inside: bool = False
