"""What the commands come to: the values that ``app`` returns and ``report`` shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what one command comes to must not cost the others their imports
    from lvsctl.diagnosis import Cause
    from lvsctl.faults.base import Fault
    from lvsctl.kernel.registry import Entry
    from lvsctl.model.claim import Finding, Verdict
    from lvsctl.model.evidence import Evidence
    from lvsctl.model.lab import Lab
    from lvsctl.model.state import NodeState
    from lvsctl.resources.base import Resource


@dataclass(frozen=True, slots=True)
class Up:
    """What ``up`` did. ``created``: the lab is new; else ``added`` and ``removed`` were changed.

    ``edited`` are those of ``added`` that took the place of something on the same subject: a
    virtual service with another scheduler, a real server with another weight.
    """

    lab: Lab
    created: bool
    added: tuple[Resource, ...] = ()
    removed: tuple[Resource, ...] = ()
    restored: tuple[str, ...] = ()
    """The faults that were taken back before anything else was looked at."""
    edited: tuple[Resource, ...] = ()

    def commands(self, op: Resource) -> tuple[str, ...]:
        """What a person would have typed for one of ``added``."""
        commands = op.edit_commands() if op in self.edited else op.commands()
        return tuple(map(str, commands))


@dataclass(frozen=True, slots=True)
class Listed:
    """A lab in the list. ``lab`` is None where its entry cannot be read (``entry.problem``)."""

    entry: Entry
    lab: Lab | None
    answering: bool
    """Whether its real servers' responder lives, where it needs one."""
    faults: tuple[str, ...] = ()
    """How it is broken on purpose: faults with their nodes."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A lab as configured, and each node's state as the kernel has it."""

    lab: Lab
    states: dict[str, NodeState]
    faults: tuple[str, ...] = ()
    """How it is broken on purpose: faults with their nodes."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The findings about a lab, with the evidence that they rest on."""

    lab: Lab
    findings: tuple[Finding, ...]
    evidence: Evidence

    @property
    def verdict(self) -> Verdict:
        """PASS only where every claim passes."""
        from lvsctl.model.claim import overall

        return overall(self.findings)


@dataclass(frozen=True, slots=True)
class FaultListed:
    """A fault as far as a lab is concerned: where it can be injected, and where it is."""

    fault: Fault
    nodes: tuple[str, ...] = ()
    injected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FaultShown:
    """A fault at one node of a lab: the commands that make it, and those that mend it."""

    fault: Fault
    lab: str
    node: str
    predicted: tuple[str, ...]
    commands: tuple[str, ...]
    remedy: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a lab does not work: ``causes``, most likely first.

    ``remarks`` are differences that do no harm. ``works``: everything that was promised was
    seen. Where it does not work for no known cause, ``ruled_out`` and ``look_at`` say more.
    """

    lab: Lab
    causes: tuple[Cause, ...]
    remarks: tuple[str, ...]
    ruled_out: tuple[str, ...]
    works: bool
    look_at: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Nothing is wrong, and nothing will be by chance."""
        return self.works and not self.causes
