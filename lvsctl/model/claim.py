"""What a forwarding method promises, and what can come of that; ``model.finding`` is what did.

Apart from that on purpose: planning a lab needs the promises, and none of the frames
that findings rest on (15 ms of imports).
"""

from __future__ import annotations

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
    """A statement in the words of LVS.

    ``broken_by`` are the ids of faults that must break it; ``unbroken`` says why there is
    none, in any lab or in those where none of them applies.
    """

    id: str
    says: str
    broken_by: tuple[str, ...] = ()
    unbroken: str = ""
