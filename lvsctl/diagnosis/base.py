"""Causes, rules, and the case that rules examine: one virtual service with its evidence.

A rule compares what the forwarding method needs with the nodes' state and the captured
frames. It does not know how a lab was broken.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from lvsctl.claims.losses import sent_again
from lvsctl.claims.trace import Conversation, Trace
from lvsctl.diagnosis.differences import Changed
from lvsctl.diagnosis.network import Network
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Cause, Finding, Remark, Verdict
from lvsctl.model.evidence import Evidence, Exchange
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Lab, Node
from lvsctl.model.service import ForwardingMethod, RealServer, VipPort, VirtualService
from lvsctl.model.state import NodeState, RealServerState, ServiceState
from lvsctl.modes.tun import COSTS

NAT, TUN, DR = ForwardingMethod.NAT, ForwardingMethod.TUN, ForwardingMethod.DR
EVERY_MODE = (NAT, TUN, DR)


Found = Cause | Remark


class Console(Protocol):
    """Where remedies are typed."""

    def type(self, node: str, words: tuple[str, ...]) -> str:
        """Return the command that runs ``words`` on a node."""
        ...

    def restore(self, node: str) -> str:
        """Return the command that makes a node, or a network's switch, what the topology says."""
        ...


@dataclass(frozen=True, slots=True)
class LabConsole:
    """The shell in which a lab was brought up. ``up`` makes it what its topology says."""

    lab: str
    up: str

    def type(self, node: str, words: tuple[str, ...]) -> str:
        """Run them in the node's namespace."""
        return f"lvsctl exec {self.lab}/{node} -- {shlex.join(words)}"

    def restore(self, node: str) -> str:  # noqa: ARG002 (all nodes at once)
        """Bring the whole lab up again."""
        return self.up


@dataclass(frozen=True)
class Case:
    """One virtual service of a lab, with all evidence. What every rule asks is computed once."""

    trace: Trace
    network: Network
    findings: tuple[Finding, ...]
    console: Console
    changes: tuple[Changed, ...] = ()
    """Every difference of a node or switch from the topology."""
    judged: str = ""
    """The director whose table is judged, if not the one that handled the requests."""

    @property
    def evidence(self) -> Evidence:
        """All evidence of the lab."""
        return self.trace.evidence

    @property
    def lab(self) -> Lab:
        """The lab as configured."""
        return self.evidence.lab

    @property
    def service(self) -> VirtualService:
        """The virtual service as configured."""
        return self.trace.run.service

    @property
    def endpoint(self) -> VipPort:
        """The protocol, VIP and port that the requests were sent to."""
        return self.trace.run.endpoint

    @property
    def vip(self) -> IPAddress:
        """The VIP that the requests were sent to."""
        return self.endpoint.vip

    @property
    def director(self) -> str:
        """The director that handled the requests."""
        return self.judged or self.trace.active_director

    @property
    def by_state(self) -> bool:
        """Whether no request was sent: then only the nodes' state can be judged."""
        return not self.trace.run.exchanges

    @property
    def client(self) -> str:
        """The name of the client that sent the requests."""
        return self.trace.run.client

    def state(self, node: str) -> NodeState:
        """A node's state; empty if it was not read."""
        return self.network.state(node)

    def members(self) -> Iterator[tuple[RealServer, Node]]:
        """The service's real servers, with their nodes."""
        for server in self.service.real_servers:
            yield server, self.lab.node(server.node)

    @cached_property
    def table(self) -> ServiceState | None:
        """The service in the director's IPVS table; None if it is missing."""
        found = self.state(self.director).services
        return next((one for one in found if one.match == self.service.match), None)

    def entry(self, server: RealServer) -> RealServerState | None:
        """The real server's entry in the IPVS table, on any port; None if it is missing."""
        entries = self._entries.get(server.rip, [])
        exact = [e for e in entries if e.port == server.port]
        return next(iter((*exact, *entries)), None)

    @cached_property
    def _entries(self) -> Mapping[IPAddress, list[RealServerState]]:
        found: dict[IPAddress, list[RealServerState]] = {}
        for one in self.table.real_servers if self.table is not None else ():
            found.setdefault(one.rip, []).append(one)
        return found

    @property
    def sorry_in_use(self) -> bool:
        """Whether the sorry server is in the table, and no real server: clients get its page."""
        entries = self.table.real_servers if self.table is not None else ()
        return any(self.service.is_sorry(one.rip) for one in entries) and not any(
            self.entry(one) for one in self.service.real_servers
        )

    def taken_out(self, node: str) -> bool:
        """Whether keepalived, on the director, has removed a real server or drained it.

        Not while the sorry server is in use: then clients notice.
        """
        if self.table is None or not self.lab.node(self.director).runs_keepalived:
            return False
        if self.sorry_in_use:
            return False
        entries = [self.entry(one) for one in self.service.real_servers if one.node == node]
        return bool(entries) and all(entry is None or not entry.weight for entry in entries)

    @property
    def clients_addresses(self) -> tuple[IPAddress, ...]:
        """The CIPs of the requests; the client's own address if no request was sent."""
        seen = dict.fromkeys(c.client.address for c in self.trace.conversations)
        seen.pop(self.vip, None)  # a client that holds the VIP itself sends from it
        if seen:
            return tuple(seen)
        held = (a.ip for i in self.lab.node(self.client).interfaces for a in i.addresses)
        return tuple(a for a in held if a.version == self.vip.version)[:1]

    # ── evidence ───────────────────────────────────────────────────────────────────────────

    def failed(self, claim: str) -> bool:
        """Whether a claim about the service fails, by id or by its last part."""
        return any(
            f.verdict is Verdict.FAIL and (f.claim.id == claim or f.claim.id.endswith(f".{claim}"))
            for f in self.findings
        )

    @property
    def answered(self) -> bool:
        """Whether every request of every client was answered, large ones too, without an error."""
        run = self.trace.run
        joined = tuple(exchange for one in run.joined for exchange in one.exchanges)
        return bool(run.exchanges) and all(
            e.answered and not e.server_error
            for e in (*run.exchanges, *run.every_large, *self._others_exchanges, *joined)
        )

    @property
    def _others_exchanges(self) -> tuple[Exchange, ...]:
        return tuple(e for other in self.trace.run.others for e in other.exchanges)

    @property
    def fine(self) -> bool:
        """Whether every request was answered, large ones too, and no claim that matters failed."""
        return self.answered and not self.unmet

    @property
    def works_otherwise(self) -> bool:
        """Whether all is answered and distributed as it should be, though in another way.

        Claims that fail are of the forwarding method only, or about where replies go, or about
        the counters of a service that is not in the table (a firewall mark's is in its place).
        """
        allowed = {"all.reply-path-counted"}
        if self.trace.run.after is None:
            allowed |= {"all.counters-agree", "all.connection-table-agrees", "all.frames-agree"}
        failed = {f.claim.id for f in self.unmet if f.claim.id.startswith("all.")}
        return self.answered and failed <= allowed

    @property
    def unmet(self) -> tuple[Finding, ...]:
        """Claims that fail and matter."""
        return tuple(
            f for f in self.findings if f.verdict is Verdict.FAIL and f.claim.id not in HARMLESS
        )

    def served(self, node: str) -> bool:
        """Whether a real server answered a request."""
        return node in self.trace.serving

    def given(self, node: str) -> tuple[Conversation, ...]:
        """The connections that IPVS assigned to a real server, or that it answered."""
        return self.trace.given(node)

    def troubled(self, node: str) -> bool:
        """Whether a request that a real server was given failed, or needed a second try."""
        own = frozenset(c.client for c in self.trace.conversations)
        return any(
            not c.exchange.answered
            or c.exchange.server_error
            or (c.client in own and bool(sent_again(self.trace, c)))
            for c in self.given(node)
        )

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        """Every connection, including those of large requests; failed ones first."""
        large = (self.trace.large,) if self.trace.large and not self.trace.further else ()
        found = (*self.trace.everything, *large)
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

    # ── commands─────────────────────────────────────────────────────────────────────────────

    def type(self, node: str, *words: object) -> str:
        """The command to type at a node of the lab."""
        return self.console.type(node, tuple(map(str, words)))

    def restore(self, node: str) -> str:
        """The command that makes a node, or a network's switch, what the topology says."""
        return self.console.restore(node)

    def sysctl(self, node: str, key: str, value: object) -> str:
        """The command that sets a sysctl at a node."""
        return self.type(node, "sysctl", "-w", f"{key}={value}")


HARMLESS = frozenset(
    {"nat.real-servers-need-nothing", *(f"tun.costs-{size}-bytes" for size in COSTS)}
)
"""Claims that may fail although everything works.

Real servers may have what NAT does not need. If the large request was answered (``Case.fine``
requires it), the path MTU was known or not needed.
"""


def _is(frame: Frame, *, out: bool) -> bool:
    if out:
        return frame.direction is Direction.OUT
    return frame.direction in (Direction.IN, Direction.BROADCAST, Direction.UNKNOWN)


def shown(frames: Iterable[Frame], most: int = 1) -> tuple[str, ...]:
    """Quote the first ``most`` frames as evidence: number, tap and content."""
    first = tuple(frames)[:most]
    return tuple(f"frame {f.number} at {f.tap}: {f.summary()}" for f in first)


Find = Callable[[Case], Iterator[Found]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Finds one or several related causes.

    ``rules_out`` says what is in order if nothing is found. ``latent``: the cause is harmful
    even if every request was answered, because the outcome depends on chance (which ARP reply
    is accepted) or because redundancy is lost.
    """

    find: Find
    rules_out: str
    modes: tuple[ForwardingMethod, ...] = EVERY_MODE
    by_state: bool = True
    """Whether the nodes' state is evidence enough: no request must have been sent."""
    latent: bool = False
    harms_others: bool = False
    """Whether the cause harms other nodes than its own."""
    applies: Callable[[Case], bool] = lambda _: True
    """Whether there is anything to judge: otherwise nothing is ruled out either."""
