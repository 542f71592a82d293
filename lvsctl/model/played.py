"""What happened during a drill. Frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lvsctl.model.claim import Verdict
from lvsctl.model.drill import Measure
from lvsctl.model.flows import FlowResult


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
