"""Inject every fault that applies, one after the other, and hold the verdicts against it.

``prove`` does so in a running lab: a claim that no fault can break proves nothing. A matrix
column does so for one topology and asks ``diagnose`` as well: it must name the fault and its
node first. Claims and diagnosis judge the same evidence, and neither knows what was injected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lvsctl import claims, diagnosis
from lvsctl.claims import failover as story
from lvsctl.engine import collect, failover
from lvsctl.engine.whole import whole_state
from lvsctl.faults import FAULTS
from lvsctl.faults.base import Fault
from lvsctl.faults.injector import FaultInjector
from lvsctl.kernel.paths import InjectedFault
from lvsctl.model.claim import Claim, Finding, Verdict, overall
from lvsctl.model.evidence import Evidence
from lvsctl.model.lab import Lab
from lvsctl.plan.deviations import find_deviations


@dataclass(frozen=True, slots=True)
class Step:
    """How far a proof is: the ``number`` of the fault, of how many, and what is tried now."""

    number: int
    total: int
    text: str


Causes = tuple[tuple[str, str], ...]
"""Causes that ``diagnose`` names: kinds and nodes, the most likely first."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault, injected at ``node``: the claims that it must break, and what failed.

    ``may_fail`` are claims that may fail as well, depending on a race. ``cause`` is what
    ``diagnose`` must name, and where.
    """

    fault: Fault
    node: str
    predicted: tuple[str, ...]
    may_fail: tuple[str, ...]
    failed: tuple[Finding, ...]
    cause: tuple[str, str] | None = None

    @property
    def failed_claims(self) -> tuple[str, ...]:
        """The ids of the claims that failed, each once."""
        return tuple(dict.fromkeys(finding.claim.id for finding in self.failed))

    @property
    def missing(self) -> tuple[str, ...]:
        """Claims that should have failed but did not."""
        return tuple(claim for claim in self.predicted if claim not in self.failed_claims)

    @property
    def surprising(self) -> tuple[str, ...]:
        """Claims that failed but should not have."""
        allowed = {*self.predicted, *self.may_fail}
        return tuple(claim for claim in self.failed_claims if claim not in allowed)

    @property
    def wrong(self) -> tuple[str, ...]:
        """What is not as predicted."""
        said = [f"{claim} did not fail" for claim in self.missing]
        return (*said, *(f"{claim} failed too" for claim in self.surprising))

    @property
    def as_predicted(self) -> bool:
        """Whether exactly the predicted claims failed, and there are any."""
        return bool(self.predicted) and not self.missing and not self.surprising


@dataclass(frozen=True, slots=True)
class Proof:
    """A lab's claims, tested by faults. ``before`` and ``after``: findings without a fault."""

    lab: Lab
    before: tuple[Finding, ...]
    trials: tuple[Trial, ...]
    after: tuple[Finding, ...]

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The claims that the lab makes, each once."""
        return tuple(dict.fromkeys(finding.claim for finding in self.before))

    @property
    def unbroken(self) -> tuple[Claim, ...]:
        """Claims that no fault broke."""
        broken = {claim for trial in self.trials for claim in trial.failed_claims}
        return tuple(claim for claim in self.claims if claim.id not in broken)

    @property
    def unexplained(self) -> tuple[Claim, ...]:
        """Unbroken claims that give no reason."""
        return tuple(claim for claim in self.unbroken if not claim.unbroken)

    @property
    def holds(self) -> bool:
        """Healthy before and after, every trial as predicted, no claim unbroken without reason."""
        healthy = overall(self.before) is overall(self.after) is Verdict.PASS
        return healthy and all(t.as_predicted for t in self.trials) and not self.unexplained

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        lines = [f"{t.fault.id} at {t.node}: {', '.join(t.wrong)}" for t in self.trials if t.wrong]
        lines += [f"{claim.id}: no fault makes it fail" for claim in self.unexplained]
        for when, found in (("before", self.before), ("after", self.after)):
            if (verdict := overall(found)) is not Verdict.PASS:
                lines.append(f"{verdict} {when} the faults")
        said = "proved" if self.holds else "not proved"
        counts = f"{len(self.claims)} claims, {len(self.trials)} faults"
        return "\n".join([*lines, f"{self.lab.name}: {said} ({counts})"])


@dataclass(frozen=True, slots=True)
class Health:
    """What ``verify`` and ``diagnose`` find in a lab without an injected fault.

    Right after a fault was restored the lab is compared with its topology instead: the verdict
    is that of the comparison, and ``differences`` are what it found.
    """

    verdict: Verdict
    causes: Causes
    differences: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Every claim passes, and no cause is named."""
        return self.verdict is Verdict.PASS and not self.causes

    @property
    def text(self) -> str:
        """What is wrong; empty if healthy."""
        if self.healthy:
            return ""
        if self.differences:
            return "; ".join(self.differences)
        return f"verify: {self.verdict}, diagnose: {_join(self.causes) or 'no cause'}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault in one topology: what it broke, what ``diagnose`` named, the lab afterwards."""

    topology: str
    trial: Trial
    named: Causes
    after: Health

    @property
    def named_first(self) -> bool:
        """Whether ``diagnose`` named the fault and its node before any other cause."""
        own = (self.trial.fault.id, self.trial.node)
        return self.named[:1] == (self.trial.cause or own,)

    @property
    def holds(self) -> bool:
        """Named first, broken as predicted, and restored."""
        return self.named_first and self.trial.as_predicted and self.after.healthy

    @property
    def wrong(self) -> tuple[str, ...]:
        """What is not as it should be."""
        problems = []
        if not self.named_first:
            problems.append(f"diagnose names {_join(self.named) or 'no cause'}")
        problems += self.trial.wrong
        if not self.after.healthy:
            problems.append(f"not restored: {self.after.text}")
        return tuple(problems)


@dataclass(frozen=True, slots=True)
class Column:
    """One topology. ``before`` is its lab without a fault; if not healthy, nothing was injected.

    ``after`` is the lab after the last fault was restored; None if nothing was injected.
    """

    topology: str
    before: Health
    cells: tuple[Cell, ...]
    after: Health | None = None

    @property
    def holds(self) -> bool:
        """Healthy at the beginning and at the end, and every cell holds."""
        ends = (self.before, self.after or self.before)
        return all(end.healthy for end in ends) and all(cell.holds for cell in self.cells)


def applicable(injector: FaultInjector, only: Sequence[str] = ()) -> tuple[tuple[Fault, str], ...]:
    """The faults that apply to a lab (``only`` those, if any), each with its default node."""
    found = []
    for fault in FAULTS.values():
        nodes = fault.nodes(injector.lab, injector.plan)
        if nodes and (not only or fault.id in only):
            found.append((fault, nodes[0]))
    return tuple(found)


def prove(
    injector: FaultInjector,
    report: Callable[[Trial], None] = lambda _: None,
    only: Iterable[str] = (),
    begin: Callable[[Step], None] = lambda _: None,
) -> Proof:
    """Test the claims of a running lab; ``only`` by some faults. ``report`` gets each trial.

    ``begin`` gets each step before it is taken.

    Nothing is injected into a lab that is not healthy. What was injected is restored, also on
    an exception or Ctrl-C. Raises what ``collect.collect_evidence`` raises.
    """
    lab = injector.lab
    faults = applicable(injector, tuple(only))
    begin(Step(0, len(faults), "without a fault"))
    before = _findings(lab)
    if overall(before) is Verdict.PASS and story.claims_of(lab):
        begin(Step(0, len(faults), "a failover without a fault"))
        before = (*before, *_of_failover(lab))
    if overall(before) is not Verdict.PASS:
        return Proof(lab, before, (), before)
    made = {finding.claim.id for finding in before}
    trials: list[Trial] = []
    for number, (fault, node) in enumerate(faults, 1):
        begin(Step(number, len(faults), f"with {fault.id} at {node}"))
        evidence, moved = _with_fault(injector, fault, node)
        trial = _trial(injector, fault, node, made, evidence, moved)
        report(trial)
        trials.append(trial)
    begin(Step(len(faults), len(faults), "without a fault, once more"))
    return Proof(lab, before, tuple(trials), _findings(lab))


def run_column(
    injector: FaultInjector,
    topology: str,
    report: Callable[[Cell], None] = lambda _: None,
    only: Sequence[str] = (),
) -> Column:
    """Test a running lab of ``topology`` by ``only`` some faults or all; ``report`` gets each cell.

    What was injected is restored, also on an exception or Ctrl-C. Raises what
    ``collect.collect_evidence`` raises.
    """
    evidence = collect.collect_evidence(injector.lab)
    before = _health(evidence)
    cells: list[Cell] = []
    if before.healthy:
        made = {finding.claim.id for finding in claims.findings(evidence)}
        made |= {claim.id for claim in story.claims_of(injector.lab)}
        for cell in _cells(injector, topology, made, only):
            report(cell)
            cells.append(cell)
    after = _health(collect.collect_evidence(injector.lab)) if cells else None
    return Column(topology, before, tuple(cells), after)


def _cells(
    injector: FaultInjector, topology: str, made: set[str], only: Sequence[str]
) -> Iterator[Cell]:
    for fault, node in applicable(injector, only):
        evidence, moved = _with_fault(injector, fault, node)
        yield Cell(
            topology,
            _trial(injector, fault, node, made, evidence, moved),
            _causes(evidence),
            _compared(injector.lab),
        )


def _compared(lab: Lab) -> Health:
    """Compare a lab with its topology, which needs no request."""
    found = find_deviations(lab, whole_state(lab))
    differences = tuple(
        f"{netns.removeprefix(lab.netns(''))}: {one.text}"
        for netns, several in found.items()
        for one in several
    )
    return Health(Verdict.FAIL if differences else Verdict.PASS, (), differences)


def _with_fault(
    injector: FaultInjector, fault: Fault, node: str
) -> tuple[Evidence, tuple[Finding, ...]]:
    """Collect evidence while ``fault`` is injected at ``node``; restore afterwards.

    Where it breaks what only a failover shows, let one director take over as well.
    """
    lab = injector.lab
    shown_then = {claim.id for claim in story.claims_of(lab)}
    try:
        injector.inject(fault, node)
        evidence = collect.collect_evidence(lab)
        return evidence, _of_failover(lab) if shown_then.intersection(fault.breaks) else ()
    finally:
        injector.restore([InjectedFault(fault.id, node)])


def _of_failover(lab: Lab) -> tuple[Finding, ...]:
    """Kill the master and bring it back; return what was found of claims about that."""
    claimed = {claim.id for claim in story.claims_of(lab)}
    there = failover.fail_over(lab)
    back = failover.fail_over(lab, back=True)
    return tuple(f for f in (*there.findings, *back.findings) if f.claim.id in claimed)


def _trial(
    injector: FaultInjector,
    fault: Fault,
    node: str,
    made: Collection[str],
    evidence: Evidence,
    moved: Collection[Finding],
) -> Trial:
    """Compare what a fault broke with what it must break, of the claims that the lab ``made``."""
    context = injector.context(node)
    predicted = fault.predicted(context)
    failed = (f for f in (*claims.findings(evidence), *moved) if f.verdict is Verdict.FAIL)
    return Trial(
        fault,
        node,
        predicted=tuple(claim for claim in predicted if claim in made),
        may_fail=tuple(claim for claim in fault.may_fail(context) if claim in made),
        failed=tuple(failed),
        cause=fault.named_as(context),
    )


def _findings(lab: Lab) -> tuple[Finding, ...]:
    return tuple(claims.findings(collect.collect_evidence(lab)))


def _health(evidence: Evidence) -> Health:
    return Health(overall(tuple(claims.findings(evidence))), _causes(evidence))


def _causes(evidence: Evidence) -> Causes:
    return tuple((cause.fault, cause.node) for cause in diagnosis.conclusion(evidence).causes)


def _join(causes: Causes) -> str:
    return ", ".join(f"{fault} at {node}" for fault, node in causes)
