"""What was found of the claims that a forwarding method makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lvsctl.model.claim import Claim, Verdict
from lvsctl.model.frame import Frame

__all__ = ["Finding", "Judgement", "Verdict", "judged", "overall", "undecided"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of a claim, on evidence alone; ``frames`` are those that show it."""

    verdict: Verdict
    expected: str
    observed: str
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim's verdict for one virtual service, with what was expected and what was seen.

    ``kernel`` is what the nodes' kernels say of lost packets, where requests were lost.
    """

    claim: Claim
    service: str
    verdict: Verdict
    expected: str
    observed: str
    frames: tuple[Frame, ...] = ()
    kernel: tuple[str, ...] = ()


def judged(holds: bool, expected: str, observed: str, frames: Iterable[Frame] = ()) -> Judgement:
    """PASS where the claim ``holds``, FAIL where it does not."""
    verdict = Verdict.PASS if holds else Verdict.FAIL
    return Judgement(verdict, expected, observed, tuple(frames))


def undecided(expected: str, observed: str, frames: Iterable[Frame] = ()) -> Judgement:
    """Nothing was seen that could have shown it."""
    return Judgement(Verdict.INCONCLUSIVE, expected, observed, tuple(frames))


def overall(findings: Iterable[Finding]) -> Verdict:
    """One verdict of all: FAIL before INCONCLUSIVE before PASS; nothing found is INCONCLUSIVE."""
    verdicts = {finding.verdict for finding in findings}
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
        if verdict in verdicts:
            return verdict
    return Verdict.INCONCLUSIVE
