"""Faults, and what they did to a lab, for programs. See ``jsonable`` for the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lvsctl.output.json_values import Json

if TYPE_CHECKING:
    from lvsctl.engine.campaign import Proof
    from lvsctl.engine.results import FaultListed, FaultShown
    from lvsctl.faults.base import Fault
    from lvsctl.model.claim import Finding

VERSION = 1


def listing(faults: Sequence[FaultListed], lab: str | None) -> Json:
    """``{version, lab, faults: [fault]}``; ``lab`` null: of all labs.

    A fault is ``{id, says, modes, roles, symptom, breaks, may_break, nodes, injected}``:
    ``nodes`` where it can be injected in the lab, ``injected`` where it is.
    """
    return {
        "version": VERSION,
        "lab": lab,
        "faults": [
            {**_fault(one.fault), "nodes": list(one.nodes), "injected": list(one.injected)}
            for one in faults
        ],
    }


def shown(one: FaultShown) -> Json:
    """``{version, lab, node, fault, predicted, commands, remedy}``.

    ``predicted`` are the claims that fail there, ``commands`` and ``remedy`` what to type.
    """
    return {
        "version": VERSION,
        "lab": one.lab,
        "node": one.node,
        "fault": _fault(one.fault),
        "predicted": list(one.predicted),
        "commands": list(one.commands),
        "remedy": list(one.remedy),
    }


def restored(faults: Sequence[str], lab: str) -> Json:
    """``{version, lab, restored: [fault at node]}``."""
    return {"version": VERSION, "lab": lab, "restored": list(faults)}


def proof(proof: Proof) -> Json:
    """``{version, lab, proved, before, trials: [trial], after, unbroken: [{id, why}]}``.

    A trial is ``{fault, node, predicted, may_fail, failed: [{id, service, observed}],
    as_predicted}``. ``before`` and ``after`` are the verdicts of the healthy lab by claim.
    ``unbroken`` are the claims that nothing broke; ``why`` is null where none is known.
    """
    return {
        "version": VERSION,
        "lab": proof.lab.name,
        "proved": proof.holds,
        "before": _verdicts(proof.before),
        "trials": [
            {
                "fault": one.fault.id,
                "node": one.node,
                "predicted": list(one.predicted),
                "may_fail": list(one.may_fail),
                "failed": [
                    {"id": f.claim.id, "service": f.service, "observed": f.observed}
                    for f in one.failed
                ],
                "as_predicted": one.as_predicted,
            }
            for one in proof.trials
        ],
        "after": _verdicts(proof.after),
        "unbroken": [{"id": claim.id, "why": claim.unbroken or None} for claim in proof.unbroken],
    }


def _fault(fault: Fault) -> Json:
    return {
        "id": fault.id,
        "says": fault.text,
        "modes": [str(mode) for mode in fault.modes],
        "roles": [str(role) for role in fault.at],
        "symptom": fault.symptom,
        "breaks": list(fault.breaks),
        "may_break": list(fault.may_break),
    }


def _verdicts(findings: Sequence[Finding]) -> list[Json]:
    return [{"id": f.claim.id, "service": f.service, "verdict": str(f.verdict)} for f in findings]
