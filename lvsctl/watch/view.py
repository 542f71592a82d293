"""From samples to what is shown: rates, owners, losses, and what is amiss. Pure.

Rates are over the last two seconds at least: IPVS adds up its processors' counts every two
seconds only (ip_vs_est.c), so between two samples nothing may seem to happen, and then twice
as much. What IPVS holds otherwise, and what the nodes count, is of the moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lvsctl.model.addresses import IPAddress
from lvsctl.model.evidence import Answers
from lvsctl.model.lab import Lab, Role
from lvsctl.model.service import ForwardingMethod, RealServer, ServiceMatch, VirtualService
from lvsctl.model.state import (
    LOSSES,
    Counters,
    Dropped,
    Gauge,
    RealServerState,
    Sample,
    ServiceState,
)
from lvsctl.watch.changes import ChangeEvent, names_of

WINDOW = 2.0
"""Seconds that a rate is over, at least."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second. ``connections`` and the ``in`` and ``out`` of IPVS; the node's own bytes.

    In TUN and DR replies do not pass the director: what a real server sends is seen at the
    real server only.
    """

    connections: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    received: float = 0.0
    sent: float = 0.0


@dataclass(frozen=True, slots=True)
class ServerView:
    """A real server of one service. ``entry`` None: IPVS does not have it.

    ``half_open`` connections wait for their handshake to end; None: too many to count.
    ``trouble`` is what is amiss, in words; empty: nothing that can be seen from here.
    """

    name: str
    address: IPAddress
    port: int
    entry: RealServerState | None
    rates: Rates
    half_open: int | None
    trouble: str


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A virtual service. ``answered`` of ``asked`` requests were, in the last round of probes."""

    name: str
    match: ServiceMatch
    forward: ForwardingMethod
    scheduler: str
    servers: tuple[ServerView, ...]
    rates: Rates
    trouble: str
    asked: int = 0
    answered: int = 0
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnerView:
    """Who a client or router next to it takes for the VIP.

    ``owner`` is the node whose ``mac`` stands in its neighbour table, ``state`` that entry's;
    all empty where there is none. ``answered`` are the nodes that answered a question aloud,
    None where none was asked.
    """

    node: str
    vip: IPAddress
    owner: str
    mac: str
    state: str
    answered: tuple[str, ...] | None
    trouble: str


@dataclass(frozen=True, slots=True)
class LossView:
    """A counter of losses that has grown at a node: by ``count`` since the sample before.

    ``total`` is since the watching began. ``text`` is what the counter means.
    """

    node: str
    counter: str
    text: str
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class View:
    """Everything to be shown of one moment. ``seconds`` since the view before (0: the first)."""

    lab: Lab
    when: float
    seconds: float
    services: tuple[ServiceView, ...]
    owners: tuple[OwnerView, ...]
    losses: tuple[LossView, ...]
    dropped: tuple[Dropped, ...]
    changes: tuple[ChangeEvent, ...]

    @property
    def troubles(self) -> tuple[str, ...]:
        """Everything that is amiss, each with its place."""
        return (
            *(f"{s.name}: {s.trouble}" for s in self.services if s.trouble),
            *(f"{r.name}: {r.trouble}" for s in self.services for r in s.servers if r.trouble),
            *(f"{o.node}: {o.trouble}" for o in self.owners if o.trouble),
        )


def view(
    lab: Lab,
    samples: Sequence[Sample],
    happened: Iterable[ChangeEvent] = (),
    answers: Answers | None = None,
) -> View:
    """What the last of ``samples`` shows beside those before it, the first of all included."""
    last = samples[-1]
    before = samples[-2] if len(samples) > 1 else last
    return View(
        lab=lab,
        when=last.when,
        seconds=last.clock - before.clock,
        services=tuple(_service(lab, service, samples, answers) for service in lab.services),
        owners=tuple(_owners(lab, last, answers)),
        losses=tuple(_losses(samples[0], before, last)),
        dropped=last.dropped,
        changes=tuple(happened),
    )


# ── services ─────────────────────────────────────────────────────────────────────────────────


def _service(
    lab: Lab, service: VirtualService, samples: Sequence[Sample], answers: Answers | None
) -> ServiceView:
    last, since = samples[-1], _window(samples)
    seconds = last.clock - since.clock
    table, before = _in_table(last, service.match), _in_table(since, service.match)
    exchanges = answers.exchanges.get(service.name, ()) if answers is not None else ()
    errors = tuple(dict.fromkeys(e.error for e in exchanges if e.error))
    answered = sum(e.answered for e in exchanges)
    silent = f"{len(exchanges) - answered} of {len(exchanges)} requests: {', '.join(errors)}"
    return ServiceView(
        name=service.name,
        match=service.match,
        forward=service.forward,
        scheduler=table.scheduler if table is not None else str(service.scheduler),
        servers=tuple(
            _server(lab, service, server, samples, since) for server in service.real_servers
        ),
        rates=_rates(
            table.counters if table is not None else None,
            before.counters if before is not None else None,
            Gauge(), Gauge(), seconds,
        ),
        trouble="not in IPVS's table" if table is None else silent if errors else "",
        asked=len(exchanges),
        answered=answered,
        errors=errors,
    )  # fmt: skip


def _server(
    lab: Lab,
    service: VirtualService,
    server: RealServer,
    samples: Sequence[Sample],
    since: Sample,
) -> ServerView:
    last = samples[-1]
    entry, before = _entry(last, service.match, server), _entry(since, service.match, server)
    waiting = _waiting(last, service, server)
    return ServerView(
        name=server.node,
        address=server.rip,
        port=server.port,
        entry=entry,
        rates=_rates(
            entry.counters if entry is not None else None,
            before.counters if before is not None else None,
            last.gauges.get(server.node, Gauge()),
            since.gauges.get(server.node, Gauge()),
            last.clock - since.clock,
        ),
        half_open=len(waiting) if waiting is not None else None,
        trouble=", ".join(_troubles(lab, service, server, samples, entry)),
    )


def _troubles(
    lab: Lab,
    service: VirtualService,
    server: RealServer,
    samples: Sequence[Sample],
    entry: RealServerState | None,
) -> Iterator[str]:
    last = samples[-1]
    if server.node not in last.states:
        yield "its namespace is gone"
        return
    down = [n for n in lab.node(server.node).networks if not _carries(last, server.node, n)]
    if down:
        yield f"{', '.join(down)} is down"
    if entry is None:
        if _in_table(last, service.match) is not None:
            yield "not in IPVS's table"
    else:
        if entry.weight != server.weight:
            drained = ", drained" if entry.weight == 0 else ""
            yield f"weight {entry.weight}, not {server.weight}{drained}"
        if entry.forward != service.forward:
            yield f"forwarded by {entry.forward}"
    stuck = _stuck(service, server, samples)
    if stuck:
        yield f"{stuck} connection{'s' if stuck > 1 else ''} unanswered"


def _carries(sample: Sample, node: str, device: str) -> bool:
    link = sample.states[node].link(device)
    return link is not None and link.up and link.carrier


def _waiting(sample: Sample, service: VirtualService, server: RealServer) -> frozenset[str] | None:
    """The service's half-open connections to a real server."""
    if sample.half_open is None:
        return None
    to = tuple(f" {endpoint.vip}:{endpoint.port}" for endpoint in service.endpoints)
    return frozenset(
        name for rip, name in sample.half_open if rip == server.rip and name.endswith(to)
    )


def _stuck(service: VirtualService, server: RealServer, samples: Sequence[Sample]) -> int:
    """Connections that have been half open for a second at least.

    A handshake takes a round trip, so a SYN that waits that long was lost, or its answer was.
    """
    last = samples[-1]
    earlier = next((s for s in reversed(samples) if last.clock - s.clock >= 1.0), None)
    now = _waiting(last, service, server)
    then = _waiting(earlier, service, server) if earlier is not None else None
    return len(now & then) if now and then else 0


def _rates(
    now: Counters | None, then: Counters | None, gauge: Gauge, before: Gauge, seconds: float
) -> Rates:
    if seconds <= 0:
        return Rates()
    now = now or Counters()
    then = then or now  # new in the table: what it has counted is not of this moment

    def each(later: int, earlier: int) -> float:
        # A counter that fell was begun anew: what it holds is what has come since.
        return (later - earlier if later >= earlier else later) / seconds

    return Rates(
        connections=each(now.connections, then.connections),
        bytes_in=each(now.bytes_in, then.bytes_in),
        bytes_out=each(now.bytes_out, then.bytes_out),
        received=each(gauge.received, before.received),
        sent=each(gauge.sent, before.sent),
    )


def _window(samples: Sequence[Sample]) -> Sample:
    """The latest sample that is old enough for rates; else the oldest."""
    last = samples[-1]
    old = (s for s in reversed(samples) if last.clock - s.clock >= WINDOW)
    return next(old, samples[0])


def _in_table(sample: Sample, key: ServiceMatch) -> ServiceState | None:
    return next((found for found in sample.table if found.match == key), None)


def _entry(sample: Sample, key: ServiceMatch, server: RealServer) -> RealServerState | None:
    table = _in_table(sample, key)
    found = [e for e in table.real_servers if e.rip == server.rip] if table is not None else []
    return next((e for e in found if e.port == server.port), None)


# ── the VIP's owner ──────────────────────────────────────────────────────────────────────────


def _owners(lab: Lab, sample: Sample, answers: Answers | None) -> Iterator[OwnerView]:
    """As every client and router beside a VIP sees it."""
    names = names_of(sample)
    directors = {node.name for node in lab.directors}
    for vip in dict.fromkeys(vip for service in lab.services for vip in service.vips):
        network = lab.network_of(vip)
        for node in (*lab.having(Role.CLIENT), *lab.having(Role.ROUTER)):
            if network is None or network.name not in node.networks:
                continue
            state = sample.states.get(node.name)
            entry = next((n for n in state.neighbours if n.address == vip), None) if state else None
            mac = entry.mac if entry is not None else ""
            owner = names.get(mac, "")
            heard = answers.arp.get((node.name, vip)) if answers is not None else None
            answered = None if heard is None else tuple(names.get(m, m) for m in heard)
            yield OwnerView(
                node=node.name,
                vip=vip,
                owner=owner,
                mac=mac,
                state=entry.state if entry is not None else "",
                answered=answered,
                trouble=", ".join(_of_owner(vip, mac, owner, answered, directors)),
            )


def _of_owner(
    vip: IPAddress, mac: str, owner: str, answered: tuple[str, ...] | None, directors: set[str]
) -> Iterator[str]:
    if mac and owner not in directors:
        yield f"takes {owner or mac} for {vip}, not the director"
    if answered is not None and not directors.intersection(answered):
        yield f"the director did not answer ARP for {vip}"
    others = [name for name in answered or () if name not in directors]
    if others:
        yield f"{', '.join(others)} answered ARP for {vip}"


# ── losses ───────────────────────────────────────────────────────────────────────────────────


def _losses(first: Sample, before: Sample, last: Sample) -> Iterator[LossView]:
    for node, gauge in last.gauges.items():
        counters: Mapping[str, int] = gauge.counters
        earlier = _counters(before, node)
        start = _counters(first, node)
        for counter, says in LOSSES.items():
            total = counters.get(counter, 0) - start.get(counter, 0)
            if total > 0:
                count = max(0, counters[counter] - earlier.get(counter, 0))
                yield LossView(node, counter, says, count, total)


def _counters(sample: Sample, node: str) -> Mapping[str, int]:
    gauge = sample.gauges.get(node)
    return gauge.counters if gauge is not None else {}
