"""Compute what `watch` shows from samples: rates, VIP owners, losses, problems. Pure functions.

Rates are averages over at least two seconds: IPVS sums its per-CPU counters only every two
seconds (ip_vs_est.c), so that over a shorter time a rate may seem to be zero, and then twice
what it is. Connections in the table and the nodes' counters are current.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lvsctl.model.addresses import IPAddress, family_of
from lvsctl.model.evidence import Answers
from lvsctl.model.lab import Lab, Role
from lvsctl.model.masters import holders_in
from lvsctl.model.service import ForwardingMethod, RealServer, ServiceMatch, VirtualService
from lvsctl.model.state import (
    LOSSES,
    Counters,
    Dropped,
    Gauge,
    HalfOpen,
    RealServerState,
    Sample,
    ServiceState,
)
from lvsctl.watch.changes import ChangeEvent, names_of

WINDOW = 2.0
"""Seconds over which a rate is averaged, at least."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates per second: IPVS's ``connections``, ``bytes_in`` and ``bytes_out``; the node's bytes.

    In TUN and DR replies do not pass the director: only the real server
    itself counts what it sends.
    """

    connections: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    received: float = 0.0
    sent: float = 0.0


@dataclass(frozen=True, slots=True)
class ServerView:
    """A real server of one service. ``entry`` None: IPVS does not have it.

    ``half_open`` counts connections whose handshake is not finished; None: too many to count, or
    unknown, because the topology does not have the service.
    ``trouble`` describes a problem; empty if none was found.
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
    """A virtual service. ``answered`` of ``asked`` requests got a reply in the last probe.

    One that is not from the topology is called ``not in topology``; without real servers it has no
    forwarding method.
    """

    name: str
    match: ServiceMatch
    forward: ForwardingMethod | str
    scheduler: str
    servers: tuple[ServerView, ...]
    rates: Rates
    trouble: str
    asked: int = 0
    answered: int = 0
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnerView:
    """The node to which a client or router on the VIP's network sends packets for the VIP.

    ``owner`` is the node whose ``mac`` is in its neighbour table, ``state`` that entry's;
    all are empty if there is no entry. ``answered`` are the nodes that replied to an ARP request;
    None if none was sent.
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

    ``total`` is since the first sample. ``text`` is what the counter means.
    """

    node: str
    counter: str
    text: str
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class View:
    """Everything shown at one time. ``seconds`` since the previous view (0: the first)."""

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
        """Every problem, each with where it is."""
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
    """Return what the last sample shows, compared with the earlier ones and the first."""
    last = samples[-1]
    before = samples[-2] if len(samples) > 1 else last
    return View(
        lab=lab,
        when=last.when,
        seconds=last.clock - before.clock,
        services=(
            *(_service(lab, service, samples, answers) for service in lab.services),
            *_others(lab, samples),
        ),
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


OTHER = "not in topology"
"""What services are called that the director has and the topology does not."""


def _others(lab: Lab, samples: Sequence[Sample]) -> Iterator[ServiceView]:
    """Yield the virtual services of the director's table that are not from the topology."""
    last, since = samples[-1], _window(samples)
    seconds = last.clock - since.clock
    nodes = {address: node.name for node in lab.nodes for address in node.addresses}
    known = {service.match for service in lab.services}
    for table in last.table:
        if table.match in known:
            continue
        before = _in_table(since, table.match)
        earlier = {(e.rip, e.port): e.counters for e in before.real_servers} if before else {}
        servers = []
        for entry in table.real_servers:
            name = nodes.get(entry.rip, "")
            rates = _rates(
                entry.counters,
                earlier.get((entry.rip, entry.port)),
                last.gauges.get(name, Gauge()),
                since.gauges.get(name, Gauge()),
                seconds,
            )
            servers.append(ServerView(name, entry.rip, entry.port, entry, rates, None, ""))
        yield ServiceView(
            name=OTHER,
            match=table.match,
            forward=servers[0].entry.forward if servers and servers[0].entry else "",
            scheduler=table.scheduler,
            servers=tuple(servers),
            rates=_rates(
                table.counters, before.counters if before else None, Gauge(), Gauge(), seconds
            ),
            trouble="",
        )


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
        if entry.forward != server.forward:
            yield f"forwarded by {entry.forward}"
    stuck = _stuck(service, server, samples)
    if stuck:
        yield f"{stuck} connection{'s' if stuck > 1 else ''} unanswered"


def _carries(sample: Sample, node: str, device: str) -> bool:
    link = sample.states[node].link(device)
    return link is not None and link.up and link.carrier


def _waiting(sample: Sample, service: VirtualService, server: RealServer) -> frozenset[str] | None:
    """Return the service's half-open connections to a real server."""
    if sample.half_open is None:
        return None
    to = tuple(f" {endpoint.vip}:{endpoint.port}" for endpoint in service.endpoints)
    return frozenset(
        name for rip, name in sample.half_open if rip == server.rip and name.endswith(to)
    )


def leftovers(lab: Lab, before: Sample, after: Sample) -> HalfOpen:
    """Return the half-open connections of ``after`` that are over (``Sample.left``).

    IPVS keeps a connection without a reply for a minute. Those that were there before a real
    server answered a new one do not tell how it is now.
    """
    if before.half_open is None or after.half_open is None:
        return frozenset()
    left = set(before.left)
    for service in lab.services:
        for server in service.real_servers:
            old, new = _waiting(before, service, server), _waiting(after, service, server)
            entries = _entry(before, service.match, server), _entry(after, service.match, server)
            if old is None or new is None or entries[0] is None or entries[1] is None:
                continue
            begun = entries[1].counters.connections - entries[0].counters.connections
            if begun > len(new - old):
                left |= {(server.rip, name) for name in old}
    return after.half_open & left


def _stuck(service: VirtualService, server: RealServer, samples: Sequence[Sample]) -> int:
    """Count connections that have been half open for at least a second.

    A handshake takes a round trip, so after a second the SYN or its reply was probably lost.
    """
    last = samples[-1]
    earlier = next((s for s in reversed(samples) if last.clock - s.clock >= 1.0), None)
    now = _waiting(last, service, server)
    if now:
        now -= {name for rip, name in last.left if rip == server.rip}
    then = _waiting(earlier, service, server) if earlier is not None else None
    return len(now & then) if now and then else 0


def _rates(
    now: Counters | None, then: Counters | None, gauge: Gauge, before: Gauge, seconds: float
) -> Rates:
    if seconds <= 0:
        return Rates()
    now = now or Counters()
    then = then or now  # new in the table: its counts are not recent

    def each(later: int, earlier: int) -> float:
        # A counter that fell was reset: its value is what was counted since.
        return (later - earlier if later >= earlier else later) / seconds

    return Rates(
        connections=each(now.connections, then.connections),
        bytes_in=each(now.bytes_in, then.bytes_in),
        bytes_out=each(now.bytes_out, then.bytes_out),
        received=each(gauge.received, before.received),
        sent=each(gauge.sent, before.sent),
    )


def _window(samples: Sequence[Sample]) -> Sample:
    """Return the latest sample that is old enough for rates; else the oldest."""
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
    """Yield what every client and router on a VIP's network has in its neighbour table."""
    names = names_of(sample)
    held = holders_in(lab, {node: state.links for node, state in sample.states.items()})
    every = {node.name for node in lab.directors}
    for vip in dict.fromkeys(vip for service in lab.services for vip in service.vips):
        network = lab.network_of(vip)
        directors = set(held.get(vip, ())) or every  # of several the master
        for node in (*lab.having(Role.CLIENT), *lab.having(Role.ROUTER)):
            if network is None or network.name not in node.networks:
                continue
            state = sample.states.get(node.name)
            entry = next((n for n in state.neighbours if n.address == vip), None) if state else None
            mac = entry.mac if entry is not None else ""
            owner = names.get(mac, "")
            replied = answers.arp.get((node.name, vip)) if answers is not None else None
            answered = None if replied is None else tuple(names.get(m, m) for m in replied)
            yield OwnerView(
                node=node.name,
                vip=vip,
                owner=owner,
                mac=mac,
                state=entry.state if entry is not None else "",
                answered=answered,
                trouble=", ".join(
                    (
                        *_split(vip, held.get(vip, ())),
                        *_of_owner(vip, mac, owner, answered, directors),
                    )
                ),
            )


def _split(vip: IPAddress, masters: tuple[str, ...]) -> Iterator[str]:
    if len(masters) > 1:
        yield f"{' and '.join(masters)} hold {vip} at the same time"


def _of_owner(
    vip: IPAddress, mac: str, owner: str, answered: tuple[str, ...] | None, directors: set[str]
) -> Iterator[str]:
    if mac and owner not in directors:
        yield f"takes {owner or mac} for {vip}, not the director"
    if answered is not None and not directors.intersection(answered):
        yield f"the director did not answer {family_of(vip).neighbours} for {vip}"
    others = [name for name in answered or () if name not in directors]
    if others:
        yield f"{', '.join(others)} answered {family_of(vip).neighbours} for {vip}"


# ── losses ───────────────────────────────────────────────────────────────────────────────────


def _losses(first: Sample, before: Sample, last: Sample) -> Iterator[LossView]:
    for node, gauge in last.gauges.items():
        counters: Mapping[str, int] = gauge.counters
        earlier = _counters(before, node)
        start = _counters(first, node)
        for counter, text in LOSSES.items():
            total = counters.get(counter, 0) - start.get(counter, 0)
            if total > 0:
                count = max(0, counters[counter] - earlier.get(counter, 0))
                yield LossView(node, counter, text, count, total)


def _counters(sample: Sample, node: str) -> Mapping[str, int]:
    gauge = sample.gauges.get(node)
    return gauge.counters if gauge is not None else {}
