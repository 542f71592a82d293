"""What the methods of a ``Lab`` return: the JSON of the commands, typed.

As a truth value each says whether all is well, so that ``assert lab.verify()`` is a test; its
repr says in a line what is not, and ``str`` says it in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Verdict
from lvsctl.model.lab import Role
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    Protocol,
    RealServer,
    Scheduler,
)
from lvsctl.model.state import (
    Connection,
    Counters,
    LinkState,
    ListenerState,
    NeighbourState,
    RealServerState,
    RouteState,
)
from lvsctl.model.walk import Change, Step

if TYPE_CHECKING:
    from lvsctl.model.evidence import Evidence
    from lvsctl.model.frame import Frame

_IN_REPR = 4
"""Claims that a verification's repr names."""


@dataclass(frozen=True, slots=True)
class Service:
    """A virtual service of a lab, as configured. ``persistence`` in seconds; 0: none."""

    name: str
    protocol: Protocol
    vip: IPAddress
    port: int
    forward: ForwardingMethod
    encapsulation: Encapsulation
    scheduler: Scheduler
    persistence: int
    real_servers: tuple[RealServer, ...]


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """A captured frame that shows something: its tap, its number in the capture, and a line."""

    tap: str
    frame: int
    summary: str

    def __str__(self) -> str:
        return f"{self.tap} #{self.frame}  {self.summary}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim's verdict for one virtual service, with what was expected and what was seen.

    ``id`` is the claim's, such as ``dr.reply-direct``; ``broken_by`` are the faults that must
    break it.
    """

    id: str
    service: str
    says: str
    verdict: Verdict
    expected: str
    observed: str
    evidence: tuple[SeenFrame, ...]
    broken_by: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.verdict is Verdict.PASS

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.verdict.upper()} {self.id} ({self.service}): {self.says}",
                f"    expected  {self.expected}",
                f"    observed  {self.observed}",
                *(f"    {frame}" for frame in self.evidence),
            ]
        )


@dataclass(frozen=True, repr=False)
class Verification:
    """What ``verify`` found. True only where every claim passes."""

    lab: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    files: Mapping[str, bytes] = field(compare=False)
    """The report that ``lvsctl verify --report`` writes, by file name."""

    @property
    def passed(self) -> bool:
        """Whether every claim passes: neither failed nor inconclusive."""
        return self.verdict is Verdict.PASS

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The findings that do not pass: what failed first, then what is inconclusive."""
        return tuple(
            finding
            for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)
            for finding in self.findings
            if finding.verdict is verdict
        )

    def finding(self, claim: str, service: str | None = None) -> Finding:
        """What was found of a claim, for a service (the first). Raises KeyError."""
        for finding in self.findings:
            if finding.id == claim and service in (None, finding.service):
                return finding
        raise KeyError(claim)

    @cached_property
    def evidence(self) -> Evidence:
        """Everything that the verdicts rest on, read from the report: for claims of your own."""
        from lvsctl.output import saved
        from lvsctl.output.evidence import evidence_from

        return evidence_from(self.files[saved.EVIDENCE], self.files[saved.CAPTURE])

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Every captured frame of every tap, decoded, in time order."""
        return self.evidence.frames

    def save(self, directory: Path | str) -> None:
        """Write the report: JSON, HTML, JUnit XML and the capture. Raises UsageError, HostError."""
        from lvsctl.output import saved

        saved.write(Path(directory), self.files)

    def __bool__(self) -> bool:
        return self.passed

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __repr__(self) -> str:
        if self.passed:
            return f"<{self.lab}: pass, {len(self.findings)} claims>"
        ids = list(dict.fromkeys(finding.id for finding in self.failed))
        more = f" and {len(ids) - _IN_REPR} more" if len(ids) > _IN_REPR else ""
        what = ", ".join(ids[:_IN_REPR]) or "nothing was found"
        return f"<{self.lab}: {self.verdict}: {what}{more}>"

    def __str__(self) -> str:
        passing = sum(map(bool, self.findings))
        last = f"{self.lab}: {self.verdict} ({passing} of {len(self.findings)} claims pass)"
        return "\n".join([*map(str, self.failed), last])


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a lab does not work: where, with what was seen, and the command that mends it.

    ``fault`` is the name of the fault that does the same (``lvsctl fault show``).
    """

    fault: str
    node: str
    says: str
    evidence: tuple[str, ...]
    consequence: str
    remedy: str

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.node}: {self.says}",
                *(f"    {line}" for line in self.evidence),
                f"    so: {self.consequence}",
                f"    mend it: {self.remedy}",
            ]
        )


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis:
    """Why a lab does not work, the most likely cause first. True where it is healthy."""

    lab: str
    works: bool
    causes: tuple[Cause, ...]
    remarks: tuple[str, ...]
    ruled_out: tuple[str, ...]
    look_at: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """It does what was promised, and no cause was found why it might not."""
        return self.works and not self.causes

    def __bool__(self) -> bool:
        return self.healthy

    def __repr__(self) -> str:
        if self.healthy:
            return f"<{self.lab}: healthy>"
        said = "; ".join(f"{c.fault} at {c.node}" for c in self.causes) or "for no known cause"
        return f"<{self.lab}: {'works by chance' if self.works else 'does not work'}: {said}>"

    def __str__(self) -> str:
        lines = [*map(str, self.causes), *self.remarks]
        if not self.healthy and not self.causes:
            lines += [f"it does not work. {line}" for line in (*self.ruled_out, *self.look_at)]
        return "\n".join(lines) or f"{self.lab}: healthy, no cause to name"


@dataclass(frozen=True, slots=True)
class HopFrame:
    """The frame of a hop at one tap; ``time`` in nanoseconds since the epoch."""

    tap: str
    frame: int
    direction: str
    time: int
    summary: str


@dataclass(frozen=True, slots=True)
class Hop:
    """One frame from one node to the next. See ``lvsctl.model.walk.Hop``.

    ``sender`` is None where nobody was seen sending it, ``receivers`` are empty where it came
    in nowhere. ``headers`` are its header fields by name, ``changes`` what the sender changed.
    """

    step: Step
    sender: str | None
    receivers: tuple[str, ...]
    network: str
    label: str
    why: str
    repeats: bool
    headers: dict[str, str]
    changes: tuple[Change, ...]
    frames: tuple[HopFrame, ...]

    def __str__(self) -> str:
        way = f"{self.sender or '?'} → {', '.join(self.receivers) or 'nobody'}"
        return f"{self.network}: {way}  {self.label}" + (f"  ({self.why})" if self.why else "")


@dataclass(frozen=True, slots=True, repr=False)
class Walk:
    """One request's way and its answer's, hop by hop. True where an answer came.

    ``server`` is who answered; None where nobody did or the answer does not say.
    """

    lab: str
    service: str
    client: str
    server: str | None
    answered: bool
    outcome: str
    seconds: float
    nodes: tuple[str, ...]
    hops: tuple[Hop, ...]

    def __bool__(self) -> bool:
        return self.answered

    def __repr__(self) -> str:
        return f"<{self.lab}/{self.service}: {self.outcome}, {len(self.hops)} hops>"

    def __str__(self) -> str:
        return "\n".join([*map(str, self.hops), f"{self.lab}/{self.service}: {self.outcome}"])


@dataclass(frozen=True, slots=True)
class Deviation:
    """What is not as the topology says, and why it should be."""

    says: str
    why: str


@dataclass(frozen=True, slots=True)
class ServiceInspection:
    """A virtual service in the director's IPVS table."""

    protocol: Protocol
    vip: IPAddress
    port: int
    scheduler: str
    persistence: int
    counters: Counters
    real_servers: tuple[RealServerState, ...]


@dataclass(frozen=True, slots=True)
class NodeInspection:
    """What the kernel holds for a node. ``services`` and ``connections`` are a director's."""

    role: Role
    netns: str
    links: tuple[LinkState, ...]
    routes: tuple[RouteState, ...]
    neighbours: tuple[NeighbourState, ...]
    sysctls: dict[str, str]
    listeners: tuple[ListenerState, ...]
    services: tuple[ServiceInspection, ...]
    connections: tuple[Connection, ...]
    deviations: tuple[Deviation, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """The nodes of a lab as the kernel has them. ``faults``: broken on purpose. True: as planned.

    Not as planned is a lab with a node that has ``deviations``.
    """

    lab: str
    nodes: dict[str, NodeInspection]
    faults: tuple[str, ...]

    def __bool__(self) -> bool:
        return not any(node.deviations for node in self.nodes.values())


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """A fault at a node: the claims that must fail now, what was done, and what mends it."""

    fault: str
    node: str
    predicted: tuple[str, ...]
    commands: tuple[str, ...]
    remedy: tuple[str, ...]
