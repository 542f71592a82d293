"""Causes: why a lab does not do what its forwarding method promises."""

from __future__ import annotations

from dataclasses import dataclass


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
