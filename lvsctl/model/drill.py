"""A drill: what happens to a lab at which time, and what is expected. Frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lvsctl.model.claim import Verdict
from lvsctl.model.flows import FlowResult


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


@dataclass(frozen=True, slots=True)
class Phase:
    """From a step to the next. ``text`` is the step (empty: before the first).

    ``at`` is when it was to begin, ``began`` when it did, in seconds since the beginning, and
    ``took`` how long the step took, in milliseconds. ``sent`` counts the requests of the phase,
    ``late`` those that were not answered at once, ``lost`` those without an answer; ``servers``
    the answers by real server.
    """

    text: str
    at: float
    began: float
    took: float
    sent: int
    late: int
    lost: int
    servers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What was expected of a drill, and what was observed."""

    measure: Measure
    expected: str
    observed: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, repr=False)
class Played:
    """What happened during a drill. True if every expectation is met.

    ``client`` asked ``service`` every ``interval`` milliseconds for ``seconds``. ``outage`` is the
    longest time without an answer that came at once, in milliseconds, known to within
    ``resolution``; None: none came again.
    """

    lab: str
    drill: str
    description: str
    service: str
    client: str
    interval: float
    seconds: float
    sent: int
    late: int
    lost: int
    outage: float | None
    resolution: float
    phases: tuple[Phase, ...]
    held: tuple[FlowResult, ...]
    expectations: tuple[Expectation, ...]

    @property
    def verdict(self) -> Verdict:
        """What the expectations amount to: FAIL if one is not met."""
        verdicts = [one.verdict for one in self.expectations]
        for one in (Verdict.FAIL, Verdict.INCONCLUSIVE):
            if one in verdicts:
                return one
        return Verdict.PASS

    def __bool__(self) -> bool:
        return self.verdict is Verdict.PASS

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        missed = [
            f"{one.measure} {one.observed}, expected {one.expected}"
            for one in self.expectations
            if one.verdict is not Verdict.PASS
        ]
        return f"{self.lab}, {self.drill}: {self.verdict}" + "".join(f"; {one}" for one in missed)
