"""Following connections through a lab: which frames, at which taps, belong to which request.

A client's own end of a connection (address and port) stays in the innermost packet on
the whole way, there and back: NAT rewrites the other end, TUN wraps the packet, DR
changes MAC addresses only. So a claim is never decided on another connection's frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lvsctl.model.evidence import Evidence, Run
from lvsctl.model.exchange import Endpoint, Exchange
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Role
from lvsctl.model.packet import Tcp, TcpFlag
from lvsctl.model.service import RealServer


class Passage(NamedTuple):
    """One packet passing a node: as it came in, and as it went out."""

    came: Frame
    went: Frame


@dataclass(frozen=True, slots=True)
class Conversation:
    """Every frame of one connection, at every tap, in time order."""

    exchange: Exchange
    client: Endpoint
    requests: tuple[Frame, ...]
    replies: tuple[Frame, ...]

    def passages(self, node: str, frames: Iterable[Frame]) -> tuple[Passage, ...]:
        """The packets of ``frames`` that came into ``node`` and went out of it again."""
        coming: dict[object, list[Frame]] = {}
        found = []
        for frame in frames:
            if frame.tap.node != node:
                continue
            if frame.direction is Direction.OUT:
                waiting = coming.get(_identity(frame))
                if waiting:
                    found.append(Passage(waiting.pop(0), frame))
            elif frame.direction is not Direction.OTHER:
                coming.setdefault(_identity(frame), []).append(frame)
        return tuple(found)


def _identity(frame: Frame) -> object:
    """What of a packet no hop changes: the client's end, the sequence numbers, the payload."""
    transport = frame.packet.transport
    numbers = (
        (transport.seq, transport.ack, int(transport.flags)) if isinstance(transport, Tcp) else ()
    )
    inner = frame.inner
    return numbers, inner.identification if inner else 0, frame.payload


@dataclass(frozen=True, slots=True)
class Trace:
    """One virtual service's run, with the frames of each of its connections."""

    evidence: Evidence
    run: Run
    director: str
    conversations: tuple[Conversation, ...]
    large: Conversation | None

    @property
    def real_servers(self) -> tuple[RealServer, ...]:
        """The service's real servers."""
        return self.run.service.real_servers

    def macs(self, node: str) -> frozenset[str]:
        """The MAC addresses of a node's interfaces."""
        state = self.evidence.states.get(node)
        links = state.links if state is not None else ()
        return frozenset(link.mac for link in links if link.mac)

    def holds(self, node: str, address: object) -> tuple[str, ...]:
        """The devices on which a node has ``address``."""
        state = self.evidence.states.get(node)
        links = state.links if state is not None else ()
        return tuple(link.name for link in links if any(a.ip == address for a in link.addresses))

    def at(self, node: str) -> Iterator[Frame]:
        """Every frame that was seen at a node's taps, whatever it belongs to."""
        return (frame for frame in self.evidence.frames if frame.tap.node == node)

    @property
    def clients(self) -> tuple[str, ...]:
        """The lab's clients."""
        return tuple(node.name for node in self.evidence.lab.having(Role.CLIENT))

    @property
    def askers(self) -> frozenset[Endpoint]:
        """Who began to ask the service while its counters were compared, as the director saw it.

        Not those of whom only late packets of an earlier connection came.
        """
        run = self.run
        vip = Endpoint(run.service.vip, run.service.key.port)
        return frozenset(
            frame.flow.src
            for frame in self.at(self.director)
            if frame.direction is Direction.IN
            and frame.flow is not None
            and frame.flow.dst == vip
            and run.began <= frame.time <= run.ended
            and (frame.tcp is None or frame.tcp.flags & TcpFlag.SYN)
        )

    @property
    def strangers(self) -> frozenset[Endpoint]:
        """Those of ``askers`` who are not us."""
        return self.askers.difference(exchange.local for exchange in self.run.exchanges)

    def request_passages(self) -> tuple[Passage, ...]:
        """Request packets that crossed the director."""
        return tuple(p for c in self.conversations for p in c.passages(self.director, c.requests))

    def reply_passages(self) -> tuple[Passage, ...]:
        """Reply packets that crossed the director."""
        return tuple(p for c in self.conversations for p in c.passages(self.director, c.replies))


def traces(evidence: Evidence) -> Iterator[Trace]:
    """The runs of ``evidence``, each with its own frames."""
    directors = evidence.lab.directors
    ends = {
        exchange.local
        for run in evidence.runs
        for exchange in (*run.exchanges, *([run.large] if run.large else ()))
        if exchange.local is not None
    }
    requests: dict[Endpoint, list[Frame]] = {}
    replies: dict[Endpoint, list[Frame]] = {}
    for frame in evidence.frames:
        flow = frame.flow
        if flow is None:
            continue
        if flow.src in ends:
            requests.setdefault(flow.src, []).append(frame)
        elif flow.dst in ends:
            replies.setdefault(flow.dst, []).append(frame)

    def conversation(exchange: Exchange) -> Conversation | None:
        end = exchange.local
        if end is None:
            return None
        return Conversation(
            exchange, end, tuple(requests.get(end, ())), tuple(replies.get(end, ()))
        )

    for asked in evidence.runs:
        servers = {server.node for server in asked.service.real_servers}
        run = replace(asked, exchanges=tuple(_named(e, servers, replies) for e in asked.exchanges))
        found = [c for exchange in run.exchanges if (c := conversation(exchange))]
        large = conversation(run.large) if run.large else None
        yield Trace(evidence, run, directors[0].name, tuple(found), large)


def _named(
    exchange: Exchange, servers: Collection[str], replies: Mapping[Endpoint, Sequence[Frame]]
) -> Exchange:
    """``exchange`` with who answered: a user's own server does not say so, its frames do."""
    if exchange.node or exchange.local is None or not exchange.answered:
        return exchange
    sent = (
        frame.tap.node
        for frame in replies.get(exchange.local, ())
        if frame.direction is Direction.OUT and frame.tap.node in servers
    )
    return replace(exchange, node=next(sent, ""))
