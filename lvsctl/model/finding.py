"""Claims that a forwarding method makes, and what was found of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What the evidence says of a claim."""

    PASS = "pass"  # noqa: S105 (no password)
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    """Nothing was seen that could have shown it, so its absence proves nothing."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement in the words of LVS. ``broken_by``: ids of faults that must break it."""

    id: str
    says: str
    broken_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim's verdict for one virtual service, with what was expected and what was seen."""

    claim: Claim
    service: str
    verdict: Verdict
    expected: str
    observed: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of a claim, on evidence alone."""

    verdict: Verdict
    expected: str
    observed: str


def judged(holds: bool, expected: str, observed: str) -> Judgement:
    """PASS where the claim ``holds``, FAIL where it does not."""
    return Judgement(Verdict.PASS if holds else Verdict.FAIL, expected, observed)


def overall(findings: Iterable[Finding]) -> Verdict:
    """One verdict of all: FAIL before INCONCLUSIVE before PASS; nothing found is INCONCLUSIVE."""
    verdicts = {finding.verdict for finding in findings}
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
        if verdict in verdicts:
            return verdict
    return Verdict.INCONCLUSIVE
