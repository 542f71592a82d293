"""What a claim is made of: its statement, and the function that decides it on evidence.

A forwarding method's file reads as a list of rows: each check stands below its claim.

    @CLAIMS.add("dr.same-vip", "the director and every real server hold the same VIP",
                broken_by=("vip-missing",))
    def same_vip(trace: Trace) -> CheckResult: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from lvsctl.claims.trace import Trace
from lvsctl.model.claim import Claim, Verdict
from lvsctl.model.frame import Frame


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A claim's verdict on evidence alone. ``frames`` are the captured frames that show it."""

    verdict: Verdict
    expected: str
    observed: str
    frames: tuple[Frame, ...] = ()


def passed_if(
    holds: bool, expected: str, observed: str, frames: Iterable[Frame] = ()
) -> CheckResult:
    """PASS if the claim ``holds``, else FAIL."""
    verdict = Verdict.PASS if holds else Verdict.FAIL
    return CheckResult(verdict, expected, observed, tuple(frames))


def inconclusive(expected: str, observed: str, frames: Iterable[Frame] = ()) -> CheckResult:
    """INCONCLUSIVE: nothing was observed that could have shown it, either way."""
    return CheckResult(Verdict.INCONCLUSIVE, expected, observed, tuple(frames))


Check = Callable[[Trace], CheckResult]
"""Decides one claim about one virtual service."""


def always(trace: Trace) -> bool:  # noqa: ARG001 (the signature of a condition)
    """Every topology makes the claim."""
    return True


@dataclass(frozen=True, slots=True)
class CheckedClaim:
    """A claim with the function that decides it.

    ``applies``: whether the topology makes the claim at all. ``needs_requests``: it cannot be
    decided where IPVS rightly refused every request. ``needs_frames``: lost frames make its
    verdict inconclusive (a check that rests on state or counters shows no frames).
    """

    claim: Claim
    check: Check
    applies: Callable[[Trace], bool] = always
    needs_requests: bool = True
    needs_frames: bool = True
    wording: Callable[[Trace], str] | None = None
    """The claim's text where it depends on the topology: on the IP version, for example."""

    def about(self, trace: Trace) -> Claim:
        """The claim in the words for one virtual service."""
        return self.claim if self.wording is None else replace(self.claim, text=self.wording(trace))


class ClaimTable:
    """The claims of one forwarding method, in the order in which they are shown."""

    def __init__(self) -> None:
        self._rows: list[CheckedClaim] = []

    def add(
        self,
        id: str,  # noqa: A002 (the field's name)
        text: str,
        *,
        broken_by: tuple[str, ...] = (),
        unbroken: str = "",
        applies: Callable[[Trace], bool] = always,
        needs_requests: bool = True,
        needs_frames: bool = True,
        wording: Callable[[Trace], str] | None = None,
    ) -> Callable[[Check], Check]:
        """Decorate the function that decides a claim; see ``Claim`` and ``CheckedClaim``."""

        def decorate(check: Check) -> Check:
            claim = Claim(id, text, broken_by, unbroken)
            row = CheckedClaim(claim, check, applies, needs_requests, needs_frames, wording)
            self._rows.append(row)
            return check

        return decorate

    def __iter__(self) -> Iterator[CheckedClaim]:
        return iter(self._rows)


def join_names(names: Sequence[str]) -> str:
    """Node names in a sentence; of more than five, four and how many more."""
    if len(names) > 5:
        return f"{', '.join(names[:4])} and {len(names) - 4} more"
    return ", ".join(names)
