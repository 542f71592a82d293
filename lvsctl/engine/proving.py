"""Counter-experiments: a claim that nothing can break proves nothing.

The lab is verified, then broken by each fault that applies to it, verified and mended
again, one after the other; at the end it must be as healthy as at the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from lvsctl import claims as verify
from lvsctl.engine import collect
from lvsctl.faults import FAULTS
from lvsctl.faults.base import Fault
from lvsctl.faults.injector import Breaking
from lvsctl.kernel.injected import Injected
from lvsctl.model.claim import Claim, Finding, Verdict, overall
from lvsctl.model.evidence import Evidence
from lvsctl.model.lab import Lab

Tell = Callable[["Trial"], None]
"""Hears of each trial as soon as it is over."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault, injected at ``node``: the claims that it must break, and what failed.

    ``may_fail`` are those that depend on who comes first. ``failed`` are the findings.
    """

    fault: Fault
    node: str
    predicted: tuple[str, ...]
    may_fail: tuple[str, ...]
    failed: tuple[Finding, ...]

    @property
    def failed_claims(self) -> tuple[str, ...]:
        """The ids of the claims that failed, each once."""
        return tuple(dict.fromkeys(finding.claim.id for finding in self.failed))

    @property
    def missing(self) -> tuple[str, ...]:
        """Claims that should have failed and did not."""
        return tuple(claim for claim in self.predicted if claim not in self.failed_claims)

    @property
    def surprising(self) -> tuple[str, ...]:
        """Claims that failed and should not have."""
        allowed = {*self.predicted, *self.may_fail}
        return tuple(claim for claim in self.failed_claims if claim not in allowed)

    @property
    def as_predicted(self) -> bool:
        """Whether exactly what was predicted failed, and anything was."""
        return bool(self.predicted) and not self.missing and not self.surprising


@dataclass(frozen=True, slots=True)
class Proof:
    """A lab's claims put to the test. ``before`` and ``after``: its findings while healthy."""

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
        """Those of them that do not say why."""
        return tuple(claim for claim in self.unbroken if not claim.unbroken)

    @property
    def holds(self) -> bool:
        """Healthy before and after, everything broken as predicted, nothing left unbroken."""
        healthy = overall(self.before) is overall(self.after) is Verdict.PASS
        return healthy and all(t.as_predicted for t in self.trials) and not self.unexplained


def prove(breaking: Breaking, tell: Tell, only: Iterable[str] | None = None) -> Proof:
    """Put the claims of a running lab to the test; ``only`` some faults, by id.

    A lab that is not healthy is not broken any further: then there are no trials. Whatever
    is injected is restored, on an exception or Ctrl-C too. Raises what ``evidence_of`` raises.
    """
    lab = breaking.lab
    before = _findings(lab)
    if overall(before) is not Verdict.PASS:
        return Proof(lab, before, (), before)
    trials: list[Trial] = []
    for trial in _trials(breaking, before, tuple(FAULTS if only is None else only)):
        tell(trial)
        trials.append(trial)
    return Proof(lab, before, tuple(trials), _findings(lab))


def _trials(
    breaking: Breaking, healthy: tuple[Finding, ...], ids: tuple[str, ...]
) -> Iterator[Trial]:
    made = {finding.claim.id for finding in healthy}
    for fault in map(FAULTS.__getitem__, ids):
        nodes = fault.nodes(breaking.lab, breaking.plan)
        if not nodes:
            continue
        yield trial_of(breaking, fault, nodes[0], made, evidence_while(breaking, fault, nodes[0]))


def evidence_while(breaking: Breaking, fault: Fault, node: str) -> Evidence:
    """What is seen of the lab while ``fault`` is injected at ``node``; it is restored after."""
    try:
        breaking.inject(fault, node)
        return collect.evidence_of(breaking.lab)
    finally:
        breaking.restore([Injected(fault.id, node)])


def trial_of(
    breaking: Breaking, fault: Fault, node: str, made: Collection[str], evidence: Evidence
) -> Trial:
    """What a fault broke, and what it must: of the claims that the lab has ``made``, by id."""
    found = verify.findings(evidence)
    predicted = fault.predicted(breaking.scene(node))
    return Trial(
        fault,
        node,
        predicted=tuple(claim for claim in predicted if claim in made),
        may_fail=tuple(claim for claim in fault.may_break if claim in made),
        failed=tuple(finding for finding in found if finding.verdict is Verdict.FAIL),
    )


def _findings(lab: Lab) -> tuple[Finding, ...]:
    return tuple(verify.findings(collect.evidence_of(lab)))
