"""Follow connections through a lab: which frames, at which taps, belong to which request.

A client's own endpoint (address and port) stays in the innermost packet of requests and
replies alike: NAT rewrites the other endpoint, TUN encapsulates the packet, DR changes MAC
addresses only. So a claim is never decided on another connection's frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from lvsctl.model.addresses import Endpoint
from lvsctl.model.evidence import Evidence, Exchange, Failure, Run
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Role
from lvsctl.model.masters import master_in
from lvsctl.model.packet import Sctp, Tcp
from lvsctl.model.service import Encapsulation, ForwardingMethod, RealServer


class Passage(NamedTuple):
    """One packet that a node forwarded: as it came in, and as it went out."""

    came: Frame
    went: Frame

    @property
    def node(self) -> str:
        """The node that forwarded it."""
        return self.came.tap.node


@dataclass(frozen=True, slots=True)
class Conversation:
    """Every frame of one connection, at every tap, in time order."""

    exchange: Exchange
    client: Endpoint
    requests: tuple[Frame, ...]
    replies: tuple[Frame, ...]

    def passages(self, node: str, frames: Iterable[Frame]) -> tuple[Passage, ...]:
        """Pair the ``frames`` that came into ``node`` with those that left it again."""
        coming: dict[object, list[Frame]] = {}
        found = []
        for frame in frames:
            if frame.tap.node != node:
                continue
            if frame.direction is Direction.OUT:
                waiting = coming.get(identity(frame))
                if waiting:
                    found.append(Passage(waiting.pop(0), frame))
            elif frame.direction is not Direction.OTHER:
                coming.setdefault(identity(frame), []).append(frame)
        return tuple(found)


def identity(frame: Frame) -> object:
    """Identify a packet by what no hop changes: sequence numbers, identification, payload."""
    transport = frame.packet.transport
    numbers: tuple[int, ...] = ()
    if isinstance(transport, Tcp):
        numbers = (transport.seq, transport.ack, int(transport.flags))
    elif isinstance(transport, Sctp):
        numbers = (transport.tag, transport.chunk)
    inner = frame.inner
    return numbers, inner.identification if inner else 0, frame.payload


@dataclass(frozen=True)
class Trace:
    """One virtual service's run, with the frames of each of its connections.

    What takes a walk through all frames or connections is computed once.
    """

    evidence: Evidence
    run: Run
    conversations: tuple[Conversation, ...]
    large: Conversation | None
    further: tuple[Conversation, ...] = ()
    """Those of every other request: large ones, other clients', and patient ones."""
    flow: Conversation | None = None
    """The frames of the requests that come from one port; that of its first request."""

    def by(self, method: ForwardingMethod, encapsulation: Encapsulation) -> Trace:
        """The same with the real servers that get requests so, and what they were given."""
        service = self.run.service.only(method, encapsulation)
        if service.real_servers == self.run.service.real_servers:
            return replace(self, run=replace(self.run, service=service))
        names = {server.node for server in service.real_servers}

        def theirs(exchange: Exchange) -> bool:
            # A request that got nowhere might have been any real server's.
            node = exchange.node or self.assigned(exchange)
            return not node or node in names

        run = replace(
            self.run,
            service=service,
            exchanges=tuple(filter(theirs, self.run.exchanges)),
            larges=tuple(filter(theirs, self.run.larges)),
            large=self.run.large if self.run.large and theirs(self.run.large) else None,
            slow=tuple(filter(theirs, self.run.slow)),
            others=tuple(
                replace(other, exchanges=tuple(filter(theirs, other.exchanges)))
                for other in self.run.others
            ),
        )
        asked = {exchange.local for exchange in run.every_large}
        larges = [c for c in (self.large, *self.further) if c is not None and c.client in asked]
        return replace(
            self,
            run=run,
            conversations=tuple(c for c in self.conversations if theirs(c.exchange)),
            large=next(iter(sorted(larges, key=lambda c: c.exchange.answered)), None),
            further=tuple(c for c in self.further if theirs(c.exchange)),
        )

    @property
    def everything(self) -> tuple[Conversation, ...]:
        """Every conversation of the service."""
        return (*self.conversations, *self.further)

    @property
    def planned_loss(self) -> float:
        """The largest loss that the topology asks for on a link, in percent; 0: none.

        Damaged frames count: the receiver's checksum discards them.
        """
        return max((one.lost for one in self.evidence.lab.impairments), default=0.0)

    @property
    def damaged(self) -> float:
        """The largest share of damaged frames that the topology asks for, in percent; 0: none.

        Any field of a header may be another one then, an address or a port.
        """
        return max((one.corrupt for one in self.evidence.lab.impairments), default=0.0)

    @property
    def disturbed(self) -> bool:
        """Whether the topology asks for frames that are damaged, repeated or out of order."""
        return any(one.disturbs for one in self.evidence.lab.impairments)

    @property
    def fails_by_planned_loss(self) -> bool:
        """Whether requests timed out that the loss which the topology asks for explains.

        Not if a real server answered none of the requests that it was given.
        """
        lost = [e for e in self.run.exchanges if not e.answered]
        if not self.planned_loss or any(e.error != Failure.TIMED_OUT for e in lost):
            return False
        answered = {self.assigned(e) or e.node for e in self.run.answered}
        return bool(lost) and all(self.assigned(e) in answered for e in lost)

    def assigned(self, exchange: Exchange) -> str:
        """The real server that IPVS chose for a request, by its connection table; or empty."""
        return self._assigned.get(exchange.local, "") if exchange.local is not None else ""

    @cached_property
    def serving(self) -> frozenset[str]:
        """The real servers that answered a request: as they say, or as frames show."""
        answered = [one for one in self.conversations if one.exchange.answered]
        senders = {
            frame.tap.node
            for one in answered
            for frame in one.replies
            if frame.direction is Direction.OUT
        }
        return frozenset(senders.union(one.exchange.node for one in answered))

    def given(self, node: str) -> tuple[Conversation, ...]:
        """The connections that IPVS assigned to a real server, or that it answered."""
        return self._given.get(node, ())

    @cached_property
    def _given(self) -> Mapping[str, tuple[Conversation, ...]]:
        found: dict[str, list[Conversation]] = {}
        for one in self.everything:
            found.setdefault(self.assigned(one.exchange) or one.exchange.node, []).append(one)
        return {node: tuple(several) for node, several in found.items()}

    @cached_property
    def _assigned(self) -> Mapping[Endpoint, str]:
        nodes = {server.rip: server.node for server in reversed(self.real_servers)}
        found: dict[Endpoint, str] = {}
        for entry in self.run.connections:
            end = Endpoint(entry.client, entry.client_port)
            found.setdefault(end, nodes.get(entry.rip, ""))
        return found

    @property
    def real_servers(self) -> tuple[RealServer, ...]:
        """The service's real servers."""
        return self.run.service.real_servers

    @property
    def vip(self) -> Endpoint:
        """The service's VIP and port."""
        return Endpoint(self.run.endpoint.vip, self.run.endpoint.port)

    @cached_property
    def directors(self) -> tuple[str, ...]:
        """The lab's directors. Which of them handled a packet is seen in its frames."""
        return tuple(node.name for node in self.evidence.lab.directors)

    def macs(self, node: str) -> frozenset[str]:
        """The MAC addresses of a node's interfaces."""
        return self._macs.get(node, frozenset())

    @cached_property
    def _macs(self) -> Mapping[str, frozenset[str]]:
        return {
            node: frozenset(link.mac for link in state.links if link.mac)
            for node, state in self.evidence.states.items()
        }

    @cached_property
    def real_servers_macs(self) -> frozenset[str]:
        """The MAC addresses of all real servers' interfaces."""
        return frozenset().union(*(self.macs(server.node) for server in self.real_servers))

    def holds(self, node: str, address: object) -> tuple[str, ...]:
        """The devices on which a node has ``address``."""
        state = self.evidence.states.get(node)
        links = state.links if state is not None else ()
        return tuple(link.name for link in links if any(a.ip == address for a in link.addresses))

    @cached_property
    def active_director(self) -> str:
        """The director at which most of the requests came in; the first if none did."""
        seen = Counter(
            frame.tap.node
            for conversation in self.conversations
            for frame in conversation.requests
            if frame.tap.node in self.directors and frame.direction is Direction.IN
        )
        return max(self.directors, key=lambda name: seen[name])

    @property
    def master(self) -> str:
        """The director that holds the VIPs, by the directors' state; the first if none does."""
        evidence = self.evidence
        return master_in(
            evidence.lab, {name: state.links for name, state in evidence.states.items()}
        )

    def vip_holders(self, nodes: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The devices on which each of ``nodes`` has the service's VIP."""
        return {node: self.holds(node, self.run.endpoint.vip) for node in nodes}

    def at(self, *nodes: str) -> Iterator[Frame]:
        """Every frame that was captured at the taps of ``nodes``, whatever it belongs to."""
        if len(nodes) == 1:
            return iter(self._by_node.get(nodes[0], ()))
        wanted = frozenset(nodes)
        return (frame for frame in self.evidence.frames if frame.tap.node in wanted)

    @cached_property
    def _by_node(self) -> Mapping[str, list[Frame]]:
        found: dict[str, list[Frame]] = {}
        for frame in self.evidence.frames:
            found.setdefault(frame.tap.node, []).append(frame)
        return found

    def at_directors(self) -> Iterator[Frame]:
        """Every frame that was captured at a director."""
        return self.at(*self.directors)

    @property
    def clients(self) -> tuple[str, ...]:
        """The lab's clients."""
        return tuple(node.name for node in self.evidence.lab.having(Role.CLIENT))

    @cached_property
    def client_endpoints(self) -> frozenset[Endpoint]:
        """Clients that a director saw open a connection while the counters were compared.

        Late packets of earlier connections do not count.
        """
        run, takes = self.run, self.run.service.takes
        protocol = run.endpoint.protocol.number
        return frozenset(
            flow.src
            for frame in self.at_directors()
            if frame.direction is Direction.IN
            and frame.packet.opens_connection
            and (flow := frame.flow) is not None
            and flow.protocol == protocol
            and takes(flow.dst)
            and run.counts(frame)
        )

    @property
    def other_clients(self) -> frozenset[Endpoint]:
        """Those of ``client_endpoints`` that are not the run's own."""
        own = {exchange.local for exchange in self.run.all_exchanges}
        return self.client_endpoints.difference(own)

    def request_passages(self) -> tuple[Passage, ...]:
        """Request packets that crossed a director."""
        return tuple(
            passage
            for conversation in self.conversations
            for director in self.directors
            for passage in conversation.passages(director, conversation.requests)
        )

    def reply_passages(self) -> tuple[Passage, ...]:
        """Reply packets that crossed a director."""
        return tuple(
            passage
            for conversation in self.conversations
            for director in self.directors
            for passage in conversation.passages(director, conversation.replies)
        )


class _Connections:
    """The frames of every connection, by the client's end."""

    def __init__(self, evidence: Evidence) -> None:
        ends = {
            exchange.local
            for run in evidence.runs
            for exchange in run.all_exchanges
            if exchange.local is not None
        }
        self.requests: dict[Endpoint, list[Frame]] = {}
        self.replies: dict[Endpoint, list[Frame]] = {}
        self._shared = _shared_ends(evidence)
        self._places = {place for run in evidence.runs for place in _places(run)}
        aliases = _source_translations(evidence, ends)
        for frame in evidence.frames:
            flow = frame.flow
            if flow is None:
                continue
            src, dst = aliases.get(flow.src, flow.src), aliases.get(flow.dst, flow.dst)
            if src in ends:
                self.requests.setdefault(src, []).append(frame)
            elif dst in ends:
                self.replies.setdefault(dst, []).append(frame)

    def of(self, run: Run, exchanges: Iterable[Exchange]) -> tuple[Conversation, ...]:
        """Return the conversations of some of a run's exchanges, of those that had a port."""
        return tuple(self._one(run, one, one.local) for one in exchanges if one.local is not None)

    def _one(self, run: Run, exchange: Exchange, end: Endpoint) -> Conversation:
        came, went = self.requests.get(end, []), self.replies.get(end, [])
        if end in self._shared:
            others = self._places - _places(run)
            came = [frame for frame in came if _is_of(run, frame, others, reply=False)]
            went = [frame for frame in went if _is_of(run, frame, others, reply=True)]
        return Conversation(exchange, end, tuple(came), tuple(went))


def traces(evidence: Evidence) -> Iterator[Trace]:
    """Split ``evidence`` into its runs, each with its own frames."""
    connections = _Connections(evidence)
    for asked in evidence.runs:
        servers = {server.node for server in asked.service.real_servers}

        def named(
            exchanges: Iterable[Exchange], servers: set[str] = servers
        ) -> tuple[Exchange, ...]:
            return tuple(_named(one, servers, connections.replies) for one in exchanges)

        run = replace(
            asked,
            exchanges=named(asked.exchanges),
            larges=named(asked.larges),
            others=tuple(replace(o, exchanges=named(o.exchanges)) for o in asked.others),
            slow=named(asked.slow),
            joined=tuple(replace(j, exchanges=named(j.exchanges)) for j in asked.joined),
            flow=named(asked.flow),
            calls=named(asked.calls),
            rerouted=tuple(replace(r, exchanges=named(r.exchanges)) for r in asked.rerouted),
        )
        large = next(iter(connections.of(run, (run.large,) if run.large else ())), None)
        kept = next(iter(connections.of(run, run.flow[:1])), None)
        further = run.all_exchanges[len(run.exchanges) : len(run.all_exchanges) - len(run.flow)]
        yield Trace(
            evidence,
            run,
            connections.of(run, run.exchanges),
            large,
            connections.of(run, further),
            kept,
        )


def _shared_ends(evidence: Evidence) -> frozenset[Endpoint]:
    """Clients' ends from which more than one service was asked: a kernel gives a port twice.

    To another VIP or port, or by another protocol, it is another connection all the same.
    """
    seen: dict[Endpoint, int] = {}
    shared = set()
    for number, run in enumerate(evidence.runs):
        for exchange in run.all_exchanges:
            if exchange.local is None:
                continue
            if seen.setdefault(exchange.local, number) != number:
                shared.add(exchange.local)
    return frozenset(shared)


_Place = tuple[int, Endpoint]
"""Where requests are sent: IANA's number of the protocol, address and port."""


def _places(run: Run) -> frozenset[_Place]:
    """Where the requests of a run's service go: to its VIPs, and on to its real servers."""
    return frozenset(
        (one.protocol.number, place)
        for one in run.service.endpoints
        for place in (
            Endpoint(one.vip, one.port),
            *(Endpoint(s.rip, s.answers_at(one)) for s in run.service.real_servers),
        )
    )


def _is_of(run: Run, frame: Frame, others: Collection[_Place], *, reply: bool) -> bool:
    """Whether a frame is of the run's service: by its protocol, and its other end.

    ``others`` are the places of other services only. A port that is neither theirs nor its own
    is one that should not be: of the run if the address is.
    """
    flow = frame.flow
    if flow is None or flow.protocol != run.endpoint.protocol.number:
        return False
    other = flow.src if reply else flow.dst
    if (flow.protocol, other) in others:
        return False
    return other.address in run.service.vips or any(
        other.address == s.rip for s in run.service.real_servers
    )


def of_other_clients(trace: Trace) -> Iterator[Trace]:
    """The requests of each further client of the service, as if it alone had asked."""
    for probe in trace.run.others:
        own = {exchange.local for exchange in probe.exchanges}
        run = replace(
            trace.run,
            client=probe.client,
            exchanges=probe.exchanges,
            large=None,
            larges=(),
            others=(),
            slow=(),
            joined=(),
            flow=(),
            calls=(),
            rerouted=(),
        )
        found = tuple(c for c in trace.further if c.client in own)
        yield Trace(trace.evidence, run, found, None)


def _source_translations(
    evidence: Evidence, ends: Collection[Endpoint]
) -> Mapping[Endpoint, Endpoint]:
    """Where a director replaced a request's source (MASQUERADE, SNAT): by new source, the old.

    The packet is recognized by what no hop changes.
    """
    directors = {node.name for node in evidence.lab.directors}
    came: dict[tuple[str, object], Endpoint] = {}
    found: dict[Endpoint, Endpoint] = {}
    for frame in evidence.frames:
        # The first packet is enough: its sequence number or tag is as good as unique.
        if frame.tap.node not in directors or not frame.packet.opens_connection:
            continue
        flow = frame.flow
        if flow is None:
            continue
        key = frame.tap.node, identity(frame)
        if frame.direction is Direction.OUT:
            before = came.get(key)
            if before is not None and before != flow.src and flow.src not in ends:
                found[flow.src] = before
        elif flow.src in ends:
            came[key] = flow.src
    return found


def _named(
    exchange: Exchange, servers: Collection[str], replies: Mapping[Endpoint, Sequence[Frame]]
) -> Exchange:
    """Add the node that answered, from its frames: a user's own server does not name itself."""
    if exchange.node or exchange.local is None or not exchange.answered:
        return exchange
    sent = (
        frame.tap.node
        for frame in replies.get(exchange.local, ())
        if frame.direction is Direction.OUT
        and frame.tap.node in servers
        # Of several requests from one port, each has its own reply.
        and frame.time >= exchange.sent_at * 1e9
    )
    return replace(exchange, node=next(sent, ""))
