"""Claims that a forwarding method makes, and findings: their verdicts with the evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from lvsctl.model.frame import Frame


class Verdict(StrEnum):
    """A claim's verdict on the evidence."""

    PASS = "pass"  # noqa: S105 (no password)
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    """Nothing was observed that could have shown it, so its absence proves nothing."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement about a forwarding method, in LVS terms.

    ``broken_by`` are the ids of faults that must break it. ``unbroken`` is the reason why no
    fault can, in any lab or in labs to which none of those faults applies.
    """

    id: str
    text: str
    broken_by: tuple[str, ...] = ()
    unbroken: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim's verdict for one virtual service, with what was expected and what was observed.

    ``kernel`` lists packet losses that the nodes' kernels counted while requests were lost.
    True if the claim passes.
    """

    claim: Claim
    service: str
    verdict: Verdict
    expected: str
    observed: str
    frames: tuple[Frame, ...] = ()
    kernel: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.verdict is Verdict.PASS

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.verdict.upper()} {self.claim.id} ({self.service}): {self.claim.text}",
                f"    expected  {self.expected}",
                f"    observed  {self.observed}",
                *(f"    {frame}" for frame in self.frames),
            ]
        )


def overall(findings: Iterable[Finding]) -> Verdict:
    """Sum up: FAIL before INCONCLUSIVE before PASS; no findings are INCONCLUSIVE."""
    verdicts = {finding.verdict for finding in findings}
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
        if verdict in verdicts:
            return verdict
    return Verdict.INCONCLUSIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a lab does not do what its forwarding method promises.

    ``fault`` is the kind of misconfiguration (``lvsctl fault show``), ``node`` is where it is.
    ``evidence`` are facts from the nodes' state and the captured frames; ``remedy`` is the
    command to type.
    """

    fault: str
    node: str
    text: str
    evidence: tuple[str, ...]
    consequence: str
    remedy: str

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.node}: {self.text}",
                *(f"    {line}" for line in self.evidence),
                f"    so: {self.consequence}",
                f"    remedy: {self.remedy}",
            ]
        )


@dataclass(frozen=True, slots=True)
class Remark:
    """A harmless difference from the topology."""

    node: str
    text: str
