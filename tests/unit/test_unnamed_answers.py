"""Real servers that do not say their names (nginx …): their frames tell who answered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvsctl import verify
from lvsctl.model.evidence import Evidence
from lvsctl.model.finding import Verdict
from tests.unit.recorded.reports import NAMES, evidence_of


def unnamed(evidence: Evidence) -> Evidence:
    """The same, answered by servers of the user's own."""
    runs = (
        replace(run, exchanges=tuple(replace(e, node="") for e in run.exchanges))
        for run in evidence.runs
    )
    return replace(evidence, runs=tuple(runs))


@pytest.mark.parametrize("name", NAMES)
def test_frames_tell_who_answered(name: str) -> None:
    found = list(verify.findings(unnamed(evidence_of(name))))

    assert {finding.verdict for finding in found} == {Verdict.PASS}
    assert found == list(verify.findings(evidence_of(name)))


def test_without_frames_nobody_knows() -> None:
    blind = replace(unnamed(evidence_of("dr")), frames=())

    verdicts = {finding.claim.id: finding.verdict for finding in verify.findings(blind)}

    assert verdicts["all.requests-answered"] is Verdict.FAIL
