"""Fault × topology: what keeps claims and diagnosis honest, made by doing it.

A lab of each topology is found healthy, with no cause to name; then, for each fault that
applies, broken, looked at and mended: diagnosis must name the fault first and where it is, the
claims that must fail do and no others, and afterwards the lab is healthy again. Claims and
diagnosis judge one and the same evidence, and neither knows what was injected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lvsctl import claims as verify
from lvsctl import diagnosis
from lvsctl.engine import collect, proving
from lvsctl.engine.proving import Trial
from lvsctl.faults import FAULTS
from lvsctl.faults.base import Fault
from lvsctl.faults.injector import Breaking
from lvsctl.model.claim import Verdict, overall
from lvsctl.model.evidence import Evidence

Named = tuple[tuple[str, str], ...]
"""Causes: kinds and nodes, the most likely first."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a lab that nothing was done to is found in order."""

    verdict: Verdict
    causes: Named

    @property
    def healthy(self) -> bool:
        """Every claim passes, and no cause is named."""
        return self.verdict is Verdict.PASS and not self.causes

    @property
    def says(self) -> str:
        """What is wrong; empty: nothing."""
        if self.healthy:
            return ""
        return f"verify: {self.verdict}, diagnose: {_words(self.causes) or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault in one topology: what it broke, what diagnosis named, and how it was after."""

    topology: str
    trial: Trial
    named: Named
    after: Health

    @property
    def named_first(self) -> bool:
        """Whether diagnosis named the fault, where it is, before any other cause."""
        return self.named[:1] == ((self.trial.fault.id, self.trial.node),)

    @property
    def holds(self) -> bool:
        """Named first, broken as predicted, and mended."""
        return self.named_first and self.trial.as_predicted and self.after.healthy

    @property
    def wrong(self) -> tuple[str, ...]:
        """What is not as it should be, in words."""
        said = []
        if not self.named_first:
            said.append(f"diagnose names {_words(self.named) or 'nothing'}")
        said += [f"{claim} did not fail" for claim in self.trial.missing]
        said += [f"{claim} failed too" for claim in self.trial.surprising]
        if not self.after.healthy:
            said.append(f"not mended: {self.after.says}")
        return tuple(said)


def _words(causes: Named) -> str:
    return ", ".join(f"{fault} at {node}" for fault, node in causes)


@dataclass(frozen=True, slots=True)
class Column:
    """One topology. ``before``: how it was found; where not healthy, nothing was injected."""

    topology: str
    before: Health
    cells: tuple[Cell, ...]

    @property
    def holds(self) -> bool:
        """Healthy at the beginning, and every cell holds."""
        return self.before.healthy and all(cell.holds for cell in self.cells)


def chosen(breaking: Breaking, only: Sequence[str] = ()) -> tuple[tuple[Fault, str], ...]:
    """The faults that apply to a lab, with the node where each shows best; ``only`` some, by id."""
    found = []
    for fault in FAULTS.values():
        nodes = fault.nodes(breaking.lab, breaking.plan)
        if nodes and (not only or fault.id in only):
            found.append((fault, nodes[0]))
    return tuple(found)


def column(
    breaking: Breaking,
    topology: str,
    tell: Callable[[Cell], None] = lambda _: None,
    only: Sequence[str] = (),
) -> Column:
    """A running lab of ``topology``, put to the test; ``tell`` hears of each cell.

    Whatever is injected is restored, on an exception or Ctrl-C too. Raises what
    ``evidence_of`` raises.
    """
    evidence = collect.evidence_of(breaking.lab)
    before = _health(evidence)
    made = {finding.claim.id for finding in verify.findings(evidence)}
    cells: list[Cell] = []
    if before.healthy:
        for cell in _cells(breaking, topology, made, only):
            tell(cell)
            cells.append(cell)
    return Column(topology, before, tuple(cells))


def _cells(
    breaking: Breaking, topology: str, made: set[str], only: Sequence[str]
) -> Iterator[Cell]:
    for fault, node in chosen(breaking, only):
        evidence = proving.evidence_while(breaking, fault, node)
        yield Cell(
            topology,
            proving.trial_of(breaking, fault, node, made, evidence),
            _named(evidence),
            _health(collect.evidence_of(breaking.lab)),
        )


def _health(evidence: Evidence) -> Health:
    return Health(overall(tuple(verify.findings(evidence))), _named(evidence))


def _named(evidence: Evidence) -> Named:
    return tuple((cause.fault, cause.node) for cause in diagnosis.conclusion(evidence).causes)
