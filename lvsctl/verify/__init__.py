"""Claims judged on evidence: pure, so that every verdict can be computed again.

Neither the kernel nor a capture is asked here; evidence is a model type.
"""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.model.evidence import Evidence
from lvsctl.model.finding import Finding
from lvsctl.verify.judges import JUDGES


def findings(seen: Evidence) -> Iterator[Finding]:
    """What the evidence says of every claim, in the order in which they are shown."""
    for claim, judge in JUDGES.items():
        judgement = judge(seen)
        yield Finding(
            claim,
            seen.service.name,
            judgement.verdict,
            judgement.expected,
            judgement.observed,
        )
