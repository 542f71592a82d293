"""Build a walk from captured frames: which frame is which hop, and what each node changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from lvsctl.claims.trace import traces
from lvsctl.model.addresses import Endpoint
from lvsctl.model.evidence import Evidence, Exchange, Run
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Lab, Role
from lvsctl.model.packet import Icmp, Tcp
from lvsctl.model.walk import Hop, Step, Walk
from lvsctl.walk.phrases import HopContext, changes_of, label_of, outcome_of, why_of

_ORDER = (Role.CLIENT, Role.ROUTER, Role.DIRECTOR, Role.REAL_SERVER)
_ROUNDING = 1000
"""Nanoseconds by which ``Exchange.sent_at``, a float, may be late."""


def walks(evidence: Evidence) -> Iterator[Walk]:
    """Yield for each run the walk of its first answered request, or else of its first."""
    for trace in traces(evidence):
        run = trace.run  # its requests name the real server that answered, as the frames show it
        chosen = next(iter((*run.answered, *run.exchanges)), None)
        if chosen is not None:
            yield walk_of(evidence, run, chosen)


def walk_of(evidence: Evidence, run: Run, exchange: Exchange) -> Walk:
    """Return the walk of one request, from the first ARP request to the last packet."""
    lab = evidence.lab
    collector = _HopCollector(lab, exchange.local)
    for frame in _concerning(evidence.frames, exchange):
        collector.take(frame)
    hops = tuple(_mark_repeated(_add_reasons(collector.hops, lab, run, exchange)))
    return Walk(
        lab=lab,
        service=run.service,
        client=run.client,
        exchange=exchange,
        nodes=_nodes(lab, run.client, hops),
        hops=hops,
        outcome=outcome_of(exchange, hops),
    )


def _concerning(frames: Iterable[Frame], exchange: Exchange) -> Iterator[Frame]:
    """Yield the connection's frames, ICMP errors about it, and ARP and ND during it."""
    begin = int(exchange.sent_at * 1e9) - _ROUNDING
    end = begin + int(exchange.seconds * 1e9) + _ROUNDING
    for frame in frames:
        if frame.direction is Direction.OTHER:
            continue
        if step_of(frame, exchange.local) in (Step.NEIGHBOUR_REQUEST, Step.NEIGHBOUR_REPLY):
            if begin <= frame.time <= end:
                yield frame
        elif step_of(frame, exchange.local) is not None:
            yield frame


def step_of(frame: Frame, client: Endpoint | None) -> Step | None:
    """Return which step a frame is of the connection of ``client``; None if it is unrelated."""
    if frame.arp is not None:
        if frame.arp.is_request:
            return Step.NEIGHBOUR_REQUEST
        return Step.NEIGHBOUR_REPLY if frame.arp.is_reply else None
    icmp = frame.icmp
    if icmp is not None:
        return _icmp_step(icmp, client)
    flow = frame.flow
    if flow is None or client is None:
        return None
    if flow.src == client:
        return Step.REQUEST
    return Step.REPLY if flow.dst == client else None


def _icmp_step(icmp: Icmp, client: Endpoint | None) -> Step | None:
    if icmp.nd is not None:
        return Step.NEIGHBOUR_REQUEST if icmp.nd.is_solicit else Step.NEIGHBOUR_REPLY
    about = icmp.quoted.flow if icmp.quoted is not None else None
    if about is None or client is None:
        return None
    return Step.ICMP_ERROR if client in (about.src, about.dst) else None


def identity(frame: Frame) -> object:
    """Return the parts of a packet that no node changes, without its addresses."""
    transport = frame.packet.transport
    numbers = (
        (transport.seq, transport.ack, int(transport.flags)) if isinstance(transport, Tcp) else ()
    )
    inner = frame.inner
    fragment = (inner.identification, inner.fragment_offset) if inner is not None else ()
    return numbers, fragment, frame.payload


@dataclass(slots=True)
class _HopCollector:
    """Collects hops from frames in time order."""

    lab: Lab
    client: Endpoint | None
    hops: list[Hop] = field(default_factory=list)
    networks: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.networks = frozenset(network.name for network in self.lab.networks)

    def take(self, frame: Frame) -> None:
        """Add a frame: a new hop, or the receiver's side of one."""
        step = step_of(frame, self.client)
        if step is None:
            return
        tap = frame.tap
        if tap.device not in self.networks:
            if frame.direction is not Direction.OUT and step is Step.REQUEST:
                self.hops.append(
                    Hop(
                        Step.DECAPSULATED,
                        sender=tap.node,
                        receivers=(tap.node,),
                        network=tap.device,
                        sent=None,
                        received=(_inside(frame),),
                        label=label_of(frame),
                    )
                )
            return
        if frame.direction is not Direction.OUT and self._arrived(frame):
            return
        out = frame.direction is Direction.OUT
        self.hops.append(
            Hop(
                step,
                tap.node if out else "",
                () if out else (tap.node,),
                tap.device,
                frame if out else None,
                () if out else (frame,),
                label_of(frame),
            )
        )

    def _arrived(self, frame: Frame) -> bool:
        """Add the frame to the hop that it is the receiver's side of; False if there is none."""
        tap = frame.tap
        for index in range(len(self.hops) - 1, -1, -1):
            hop = self.hops[index]
            if (
                hop.network == tap.device
                and tap.node not in (*hop.receivers, hop.sender)
                and hop.frame.raw.data == frame.raw.data
            ):
                self.hops[index] = replace(
                    hop, receivers=(*hop.receivers, tap.node), received=(*hop.received, frame)
                )
                return True
        return False


def _inside(frame: Frame) -> Frame:
    """Return the inner packet: a gre device still shows the outer headers (LinkType.RAW)."""
    return replace(frame, packet=replace(frame.packet, ips=frame.ips[-1:], tunnels=()))


def _add_reasons(hops: Iterable[Hop], lab: Lab, run: Run, exchange: Exchange) -> Iterator[Hop]:
    """Yield the hops with what changed, and why."""
    came: dict[tuple[str, object], Frame] = {}
    everything = tuple(hops)
    for hop in everything:
        before = None
        if hop.step not in (Step.NEIGHBOUR_REQUEST, Step.NEIGHBOUR_REPLY):
            before = came.get((hop.sender, identity(hop.frame)))
        changes = changes_of(before, hop.frame) if before is not None else ()
        passed = HopContext(lab, run, exchange, hop, before, changes, everything)
        yield replace(hop, changes=changes, why=why_of(passed))
        for frame in hop.received:
            came[frame.tap.node, identity(frame)] = frame


def _mark_repeated(hops: Iterable[Hop]) -> Iterator[Hop]:
    """Mark hops that are like an earlier one of the connection."""
    seen = set()
    for hop in hops:
        key = (hop.step, hop.sender, hop.receivers, hop.network, hop.changes)
        known = hop.step in (Step.REQUEST, Step.DECAPSULATED, Step.REPLY) and key in seen
        seen.add(key)
        yield replace(hop, again=known)


def _nodes(lab: Lab, client: str, hops: Iterable[Hop]) -> tuple[str, ...]:
    seen = {client: None}
    for hop in hops:
        seen.update(dict.fromkeys(filter(None, (hop.sender, *hop.receivers))))
    order = {node.name: (_ORDER.index(node.role), n) for n, node in enumerate(lab.nodes)}
    return tuple(sorted(seen, key=lambda name: order.get(name, (len(_ORDER), 0))))


def packets(hops: Iterable[Hop]) -> tuple[tuple[Hop, ...], ...]:
    """Group hops by the packet that they carry, in the order of their first hops."""
    found: dict[object, list[Hop]] = {}
    for hop in hops:
        found.setdefault((hop.step is Step.REPLY, identity(hop.frame)), []).append(hop)
    return tuple(map(tuple, found.values()))
