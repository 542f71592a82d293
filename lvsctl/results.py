"""What the commands come to: the values that ``app`` returns and ``report`` shows."""

from __future__ import annotations

from dataclasses import dataclass

from lvsctl.kernel.registry import Entry
from lvsctl.model.evidence import Evidence
from lvsctl.model.finding import Finding, Verdict, overall
from lvsctl.model.lab import Lab
from lvsctl.model.state import NodeState
from lvsctl.ops import Op


@dataclass(frozen=True, slots=True)
class Up:
    """What ``up`` did. ``created``: the lab is new; else ``added`` and ``removed`` were changed."""

    lab: Lab
    created: bool
    added: tuple[Op, ...] = ()
    removed: tuple[Op, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """A lab in the list. ``lab`` is None where its entry cannot be read (``entry.problem``)."""

    entry: Entry
    lab: Lab | None
    answering: bool
    """Whether its real servers' responder lives, where it needs one."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A lab as configured, and each node's state as the kernel has it."""

    lab: Lab
    states: dict[str, NodeState]


@dataclass(frozen=True, slots=True)
class Verification:
    """The findings about a lab, with the evidence that they rest on."""

    lab: Lab
    findings: tuple[Finding, ...]
    evidence: Evidence

    @property
    def verdict(self) -> Verdict:
        """PASS only where every claim passes."""
        return overall(self.findings)
