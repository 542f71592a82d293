"""Results of examining a lab: its state, its claims, its faults and their causes.

Each is true if all is well, so that ``assert lab.verify()`` is a test. ``repr`` is a line,
``str`` a full account.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lvsctl.faults.base import Fault
from lvsctl.model.claim import Cause, Finding, Verdict, overall
from lvsctl.model.evidence import Evidence
from lvsctl.model.frame import Frame
from lvsctl.model.lab import Lab, Role
from lvsctl.model.state import NodeState
from lvsctl.resources.base import Deviation

NO_CLIENT = ("client-is-director", "client-is-real-server")
"""Causes that say nothing against the lab: the node that was asked to send cannot be a client."""

_IN_REPR = 4
"""Claims that a verification's repr names."""


@dataclass(frozen=True, slots=True)
class NodeInspection:
    """A node's state in the kernel, and how it deviates from the topology.

    ``vrrp``: ``master`` or ``backup`` of a director that shares its VIPs with others.
    """

    role: Role
    state: NodeState
    deviations: tuple[Deviation, ...] = ()
    vrrp: str = ""


@dataclass(frozen=True, slots=True)
class SwitchInspection:
    """How the switch of a network deviates from the topology."""

    deviations: tuple[Deviation, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """The nodes of a lab by name. ``faults`` are the injected faults with their nodes.

    True if no node deviates from the topology.
    """

    lab: Lab
    nodes: dict[str, NodeInspection]
    faults: tuple[str, ...] = ()
    switches: dict[str, SwitchInspection] = field(default_factory=dict)
    """By the name of the network; empty where only some nodes were asked for."""

    @property
    def states(self) -> dict[str, NodeState]:
        """The nodes' states by name."""
        return {name: node.state for name, node in self.nodes.items()}

    def __bool__(self) -> bool:
        return not any(self.deviations)

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """The deviations of all nodes and switches."""
        parts: tuple[NodeInspection | SwitchInspection, ...] = (
            *self.nodes.values(),
            *self.switches.values(),
        )
        return tuple(one for part in parts for one in part.deviations)


@dataclass(frozen=True, slots=True, repr=False)
class Verification:
    """The findings about a lab and the evidence that they rest on. True if every claim passes.

    ``notes`` say why the node that sent the requests is no client of a service, where it is none.
    """

    lab: Lab
    findings: tuple[Finding, ...]
    evidence: Evidence
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """PASS if every claim passes, else FAIL or INCONCLUSIVE."""
        return overall(self.findings)

    @property
    def passed(self) -> bool:
        """Whether every claim passes: neither failed nor inconclusive."""
        return self.verdict is Verdict.PASS

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings that do not pass: failed ones first, then inconclusive ones."""
        return tuple(
            finding
            for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)
            for finding in self.findings
            if finding.verdict is verdict
        )

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Every captured frame of every tap, decoded, in time order."""
        return self.evidence.frames

    def finding(self, claim: str, service: str | None = None) -> Finding:
        """Return the finding about a claim, for a service (default: the first).

        Raises KeyError if there is none.
        """
        for finding in self.findings:
            if finding.claim.id == claim and service in (None, finding.service):
                return finding
        raise KeyError(claim)

    def __bool__(self) -> bool:
        return self.passed

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __repr__(self) -> str:
        if self.passed:
            return f"<{self.lab.name}: pass, {len(self.findings)} claims>"
        ids = list(dict.fromkeys(finding.claim.id for finding in self.failed))
        more = f" and {len(ids) - _IN_REPR} more" if len(ids) > _IN_REPR else ""
        what = ", ".join(ids[:_IN_REPR]) or "nothing was found"
        return f"<{self.lab.name}: {self.verdict}: {what}{more}>"

    def __str__(self) -> str:
        passing = sum(map(bool, self.findings))
        last = f"{self.lab.name}: {self.verdict} ({passing} of {len(self.findings)} claims pass)"
        return "\n".join([*map(str, self.failed), last])


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis:
    """Why a lab does not work: ``causes``, most likely first. True if it is healthy.

    ``remarks`` are harmless differences. ``works``: everything that was promised was observed,
    or every request was answered, but not as the topology says: see ``differences``.
    If it does not work and no cause was found, ``ruled_out`` and ``next_steps`` help further.
    """

    lab: Lab
    causes: tuple[Cause, ...]
    remarks: tuple[str, ...]
    ruled_out: tuple[str, ...]
    works: bool
    next_steps: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether the lab works as its topology says, and nothing was found that may break it."""
        return self.works and not self.causes and not self.differences

    def __bool__(self) -> bool:
        return self.healthy

    @property
    def undecided(self) -> str:
        """The node that sent the requests, where it cannot be a client; else empty."""
        nodes = {cause.node for cause in self.causes if cause.fault in NO_CLIENT}
        return nodes.pop() if nodes and len(self.causes) == len(nodes) else ""

    def __repr__(self) -> str:
        name = self.lab.name
        if self.healthy:
            return f"<{name}: healthy>"
        if self.undecided:
            return f"<{name}: undecided, asked from {self.undecided}>"
        if self.works and not self.causes:
            return f"<{name}: works, not as the topology says>"
        causes = "; ".join(f"{c.fault} at {c.node}" for c in self.causes) or "cause not identified"
        return f"<{name}: {'works by chance' if self.works else 'not working'}: {causes}>"

    def __str__(self) -> str:
        lines = [*map(str, self.causes), *self.remarks, *self.differences]
        if not self.works and not self.causes:
            lines += ["not working; cause not identified", *self.ruled_out, *self.next_steps]
        return "\n".join(lines) or f"{self.lab.name}: healthy: no problem found"


@dataclass(frozen=True, slots=True)
class CheckedHost:
    """A real host that was asked for its state.

    ``name`` is that of the inventory or the file (empty: the topology's ``node`` was not
    collected), ``node`` the node that it is (empty: none). ``problem`` is why it was not judged;
    ``ignored``: it need not be. ``interfaces`` are the host's by network, empty where it has none.
    ``unread`` are parts of its state that were not read, so that nothing is said about them.
    """

    name: str
    node: str
    problem: str = ""
    kernel: str = ""
    interfaces: dict[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    ignored: bool = False

    @property
    def judged(self) -> bool:
        """Whether its state was compared with the topology, or need not be."""
        return not self.problem or self.ignored


@dataclass(frozen=True, slots=True, repr=False)
class Check:
    """How real hosts differ from a topology: ``causes``, in the order to fix them.

    ``remarks`` are harmless differences, and what is not judged. ``ruled_out`` says what is in
    order; empty where a host or a part of its state was not read. ``findings`` are the claims that
    were decided on captured frames, if there are any. True if no cause was found, every host was
    judged and every claim passes.
    """

    lab: Lab
    causes: tuple[Cause, ...]
    remarks: tuple[str, ...]
    ruled_out: tuple[str, ...]
    hosts: tuple[CheckedHost, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether every host was judged, no cause was found and every claim passes."""
        complete = all(host.judged for host in self.hosts)
        return not self.causes and complete and all(self.findings)

    def __bool__(self) -> bool:
        return self.healthy

    def __repr__(self) -> str:
        causes = "; ".join(f"{c.fault} at {c.node}" for c in self.causes)
        silent = ", ".join(host.name or host.node for host in self.hosts if not host.judged)
        claims = ", ".join(f"{one.claim.id} {one.verdict}" for one in self.findings if not one)
        parts = (causes, silent and f"not judged: {silent}", claims)
        found = "; ".join(filter(None, parts))
        return f"<{self.lab.name}: {found or 'as the topology says'}>"


@dataclass(frozen=True, slots=True)
class FaultListed:
    """A fault, the nodes of a lab where it can be injected, and those where it is."""

    fault: Fault
    nodes: tuple[str, ...] = ()
    injected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FaultShown:
    """A fault at one node of a lab: the commands that inject it, and those that restore it.

    ``predicted`` are the claims that must fail while it is injected.
    """

    fault: Fault
    lab: str
    node: str
    predicted: tuple[str, ...]
    commands: tuple[str, ...]
    remedy: tuple[str, ...]
