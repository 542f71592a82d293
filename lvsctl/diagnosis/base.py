"""What a cause is, and what rules look at: a virtual service, and what was seen of it.

A rule compares what the forwarding method needs with what the nodes hold and what the
frames show. It knows nothing of how a lab was broken: a cause is found in the same way
whoever broke it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lvsctl.claims.trace import Conversation, Trace
from lvsctl.diagnosis.network import Network
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Finding, Verdict
from lvsctl.model.evidence import Evidence
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Lab, Node
from lvsctl.model.service import ForwardingMethod, RealServer, VirtualService
from lvsctl.model.state import NodeState, RealServerState, ServiceState
from lvsctl.modes.tun import HEADERS

NAT, TUN, DR = ForwardingMethod.NAT, ForwardingMethod.TUN, ForwardingMethod.DR
EVERY_MODE = (NAT, TUN, DR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a lab does not do what its forwarding method promises.

    ``fault`` names the kind of misconfiguration, ``node`` is where it is. ``evidence`` are
    facts of the nodes' state and frames; ``remedy`` is the command to type.
    """

    fault: str
    node: str
    says: str
    evidence: tuple[str, ...]
    consequence: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Remark:
    """A difference that does no harm."""

    node: str
    says: str


Found = Cause | Remark


@dataclass(frozen=True, slots=True)
class Case:
    """One virtual service of a lab, with everything that was seen of it."""

    trace: Trace
    network: Network
    findings: tuple[Finding, ...]
    up: str
    """The command that makes the lab what its topology says."""

    @property
    def evidence(self) -> Evidence:
        """All that was seen of the lab."""
        return self.trace.evidence

    @property
    def lab(self) -> Lab:
        """The lab as it should be."""
        return self.evidence.lab

    @property
    def service(self) -> VirtualService:
        """The virtual service as it should be."""
        return self.trace.run.service

    @property
    def vip(self) -> IPAddress:
        """The service's VIP."""
        return self.service.vip

    @property
    def director(self) -> str:
        """The director that handled the requests."""
        return self.trace.active_director

    @property
    def client(self) -> str:
        """The name of the client that asked."""
        return self.trace.run.client

    def state(self, node: str) -> NodeState:
        """What the kernel holds for a node; nothing where it was not looked at."""
        return self.network.state(node)

    def members(self) -> Iterator[tuple[RealServer, Node]]:
        """The service's real servers, with their nodes."""
        for server in self.service.real_servers:
            yield server, self.lab.node(server.node)

    @property
    def table(self) -> ServiceState | None:
        """The service as IPVS has it."""
        found = self.state(self.director).services
        return next((one for one in found if one.key == self.service.key), None)

    def entry(self, server: RealServer) -> RealServerState | None:
        """The real server as IPVS has it, under whatever port."""
        table = self.table
        entries = [e for e in table.real_servers if e.rip == server.rip] if table else []
        exact = [e for e in entries if e.port == server.port]
        return next(iter((*exact, *entries)), None)

    @property
    def clients_addresses(self) -> tuple[IPAddress, ...]:
        """The CIPs that requests came from; where none got so far, the client's own address."""
        seen = dict.fromkeys(c.client.address for c in self.trace.conversations)
        seen.pop(self.vip, None)  # a client that holds the VIP itself asks from it
        if seen:
            return tuple(seen)
        held = (a.ip for i in self.lab.node(self.client).interfaces for a in i.addresses)
        return tuple(a for a in held if a.version == self.vip.version)[:1]

    # ── what was seen ────────────────────────────────────────────────────────────────────────

    def failed(self, claim: str) -> bool:
        """Whether a claim about the service fails, by id or by its last part."""
        return any(
            f.verdict is Verdict.FAIL and (f.claim.id == claim or f.claim.id.endswith(f".{claim}"))
            for f in self.findings
        )

    @property
    def fine(self) -> bool:
        """Whether all that was promised was seen, and large requests were answered too."""
        large = self.trace.run.large
        return (
            bool(self.trace.run.exchanges)
            and all(e.answered for e in self.trace.run.exchanges)
            and (large is None or large.answered)
            and not any(
                f.verdict is Verdict.FAIL and f.claim.id not in HARMLESS for f in self.findings
            )
        )

    def served(self, node: str) -> bool:
        """Whether a real server answered a request."""
        return any(
            c.exchange.answered
            and (
                c.exchange.node == node
                or any(f.tap.node == node and f.direction is Direction.OUT for f in c.replies)
            )
            for c in self.trace.conversations
        )

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        """Every connection, the large request's too; those that failed first."""
        found = (*self.trace.conversations, *([self.trace.large] if self.trace.large else ()))
        return tuple(sorted(found, key=lambda c: c.exchange.answered))

    def requests(self, node: str, *, out: bool = False) -> tuple[Frame, ...]:
        """Request packets that came in at (went out of) a node."""
        return tuple(
            f
            for c in self.conversations
            for f in c.requests
            if f.tap.node == node and _is(f, out=out)
        )

    def replies(self, node: str, *, out: bool = False) -> tuple[Frame, ...]:
        """Reply packets that came in at (went out of) a node."""
        return tuple(
            f
            for c in self.conversations
            for f in c.replies
            if f.tap.node == node and _is(f, out=out)
        )

    # ── words ────────────────────────────────────────────────────────────────────────────────

    def type(self, node: str, *words: object) -> str:
        """The command to type at a node of the lab."""
        return f"lvsctl exec {self.lab.name}/{node} -- {shlex.join(map(str, words))}"

    def sysctl(self, node: str, key: str, value: object) -> str:
        """The command that sets a sysctl at a node."""
        return self.type(node, "sysctl", "-w", f"{key}={value}")


HARMLESS = frozenset(
    {"nat.real-servers-need-nothing", *(f"tun.costs-{size}-bytes" for size in HEADERS.values())}
)
"""Claims whose failing alone harms nobody.

What real servers need not have, they may have. And where the large request was answered
(``Case.fine`` asks for that), the path's MTU was known or was not needed.
"""


def _is(frame: Frame, *, out: bool) -> bool:
    if out:
        return frame.direction is Direction.OUT
    return frame.direction in (Direction.IN, Direction.BROADCAST, Direction.UNKNOWN)


def shown(frames: Iterable[Frame], most: int = 1) -> tuple[str, ...]:
    """The first of some frames, as evidence: number, tap and what they carry."""
    first = tuple(frames)[:most]
    return tuple(f"frame {f.number} at {f.tap}: {f.summary()}" for f in first)


Find = Callable[[Case], Iterator[Found]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One or several causes that are looked for together.

    ``rules_out`` is what is known to be in order where nothing is found. ``latent``: the
    cause harms even where everything was answered while it was looked at: it makes the
    outcome depend on chance (whose ARP answer is believed) or takes a reserve away.
    """

    find: Find
    rules_out: str
    modes: tuple[ForwardingMethod, ...] = EVERY_MODE
    latent: bool = False
    harms_others: bool = False
    """Whether the node where it is may do well all the same."""
