"""Ask all virtual services of a running lab at once; read meanwhile what requests do not change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from lvsctl.claims.distribution import requests_for_each, requests_needed, room_for
from lvsctl.engine import rerouting
from lvsctl.engine.whole import changed_settings, whole_state
from lvsctl.kernel import counters
from lvsctl.kernel.masters import active_directors
from lvsctl.kernel.netns import run_inside
from lvsctl.kernel.state import read_connections
from lvsctl.model.event import Emit, StageStarted
from lvsctl.model.evidence import (
    LARGE,
    DirectorTable,
    Exchange,
    Failure,
    Joined,
    Probe,
    Rerouted,
    Run,
)
from lvsctl.model.lab import Lab, Node
from lvsctl.model.service import Protocol, VipPort, VirtualService
from lvsctl.model.state import (
    ChangedSysctls,
    Connection,
    NodeState,
    ServiceState,
    added_up,
)
from lvsctl.plan.routing import clients_of
from lvsctl.traffic import client
from lvsctl.traffic.attempts import new_call

PATIENCE = 10.0
"""Seconds that ``diagnose`` waits for a server that accepts a connection and does not answer."""

STAGES = 5
"""Stages that are reported as progress; in the last one the caller decides claims or causes."""

THREADS = 16
"""Services and clients that are asked at the same time."""


@dataclass(slots=True)
class _Asked:
    """A virtual service while it is asked: its clients, the first of which sends the run's own."""

    service: VirtualService
    clients: tuple[Node, ...]
    before: ServiceState | None
    used_ports: frozenset[int]
    """Clients' ports of earlier connections: a request from there would not be scheduled."""
    exchanges: tuple[Exchange, ...] = ()
    larges: tuple[Exchange, ...] = ()
    others: tuple[Probe, ...] = ()
    slow: tuple[Exchange, ...] = ()
    joined: tuple[Joined, ...] = ()
    flow: tuple[Exchange, ...] = ()
    calls: tuple[Exchange, ...] = ()

    @property
    def call(self) -> str | None:
        """The Call-ID of requests: one of its own for each, where the service keeps SIP calls."""
        return "" if self.service.keeps_calls else None

    @property
    def left(self) -> int | None:
        """How many more connections the real servers take; None: as many as one likes."""
        room = room_for(self.service, self.before)
        return None if room is None else max(0, room - len(self.exchanges))


class Answers(NamedTuple):
    """What came of asking, and what was read by namespace while there was nothing but to wait."""

    runs: tuple[Run, ...]
    states: dict[str, NodeState]
    changed: Future[ChangedSysctls] | None


def ask_all(
    lab: Lab,
    sender: Node | None,
    background: ThreadPoolExecutor,
    *,
    patient: bool,
    settings: bool,
    emit: Emit,
) -> Answers:
    """Ask all services at once; compare counters around the first requests of each."""
    emit(StageStarted(_asking(lab), 2, STAGES))
    directors = [lab.netns(one.name) for one in active_directors(lab)]
    starts = _wait_for_counters(dict.fromkeys(directors))
    used_ports = frozenset(
        connection.client_port for start in starts for connection in start.state.connections
    )
    asked = [
        _Asked(
            service,
            (sender,) if sender is not None else clients_of(lab, service),
            _in_tables(starts, service),
            used_ports,
        )
        for service in lab.services
    ]
    with ExitStack() as held, ThreadPoolExecutor(THREADS) as pool:
        opening = [pool.submit(_first_requests, lab, one, held) for one in asked]
        hanging = wait(opening, timeout=_promptly(lab, asked)).not_done
        # What requests do not change is read as soon as there is time; of requests that are not
        # answered, all of it is evidence.
        reading = background.submit(whole_state, lab, settings=False)
        changed = background.submit(changed_settings, lab) if settings or hanging else None
        for one, exchanges in zip(asked, opening, strict=True):
            one.exchanges = exchanges.result()
        emit(StageStarted("reading the state while IPVS adds up its counters", 3, STAGES))
        if settings or any(_unanswered(one.exchanges) for one in asked):
            changed = changed or background.submit(changed_settings, lab)
        elif changed and changed.cancel():
            changed = None
        ends = _wait_for_counters(
            {name: start.unaccounted for name, start in zip(directors, starts, strict=True)}
        )
        states = reading.result()
        for waiting in [pool.submit(_further_requests, lab, one) for one in asked]:
            waiting.result()
        if patient:
            table = tuple(one for end in ends for one in end.state.connections)
            for waiting in [pool.submit(_wait_longer, lab, one, table) for one in asked]:
                waiting.result()
        rerouted = _rerouted(lab, asked)
        late = [run_inside(name, read_connections) for name in directors]
    held_by = [_all_connections(*one) for one in zip(ends, late, strict=True)]
    runs = tuple(
        Run(
            service=one.service,
            client=one.clients[0].name,
            exchanges=one.exchanges,
            before=one.before,
            after=_in_tables(ends, one.service),
            connections=tuple(entry for table in held_by for entry in table),
            large=next((e for e in one.larges if not e.answered), next(iter(one.larges), None)),
            began=max(start.when for start in starts),
            ended=min(end.when for end in ends),
            larges=one.larges,
            others=one.others,
            slow=one.slow,
            joined=one.joined,
            flow=one.flow,
            calls=one.calls,
            tables=tuple(_tables(lab, one.service, starts, ends, held_by)),
            rerouted=flows,
        )
        for one, flows in zip(asked, rerouted, strict=True)
    )
    return Answers(runs, states, changed)


def _wait_for_counters(
    directors: Mapping[str, counters.Unaccounted | None],
) -> tuple[counters.IpvsCounters, ...]:
    """Read the directors' states once their counters are up to date; by what is unaccounted."""
    with ThreadPoolExecutor(len(directors)) as pool:
        waiting = [
            pool.submit(
                counters.wait_for_ipvs_counters, name, unaccounted=missing or counters.NOTHING
            )
            for name, missing in directors.items()
        ]
        return tuple(one.result() for one in waiting)


def _in_tables(
    found: Iterable[counters.IpvsCounters], service: VirtualService
) -> ServiceState | None:
    """The service in the tables of all directors that handle requests, added up."""
    tables = (_in_table(one.state, service) for one in found)
    return added_up(table for table in tables if table is not None)


def _tables(
    lab: Lab,
    service: VirtualService,
    starts: Iterable[counters.IpvsCounters],
    ends: Iterable[counters.IpvsCounters],
    held_by: Iterable[tuple[Connection, ...]],
) -> Iterator[DirectorTable]:
    """Each director's own part of that, where there are several."""
    if lab.ecmp:
        for node, start, end, entries in zip(lab.directors, starts, ends, held_by, strict=True):
            before, after = _in_table(start.state, service), _in_table(end.state, service)
            yield DirectorTable(node.name, before, after, entries, start.when, end.when)


def _promptly(lab: Lab, asked: Iterable[_Asked]) -> float:
    """Seconds in which requests are answered as a rule, where they are answered at all."""
    many = sum(requests_needed(one.service, one.before) for one in asked)
    return 0.5 + 0.003 * many + 8 * one_way(lab)


def _unanswered(exchanges: Iterable[Exchange]) -> bool:
    return any(not one.answered for one in exchanges)


def _rerouted(lab: Lab, asked: Sequence[_Asked]) -> tuple[tuple[Rerouted, ...], ...]:
    """Flows that routers send to one director after the other; none where one handles them."""
    if not lab.ecmp:
        return tuple(() for _ in asked)
    return rerouting.reroute(
        lab, [(one.service, one.clients[0], one.left) for one in asked], answer_timeout(lab)
    )


def _all_connections(
    end: counters.IpvsCounters, late: Iterable[Connection]
) -> tuple[Connection, ...]:
    """A director's connections: those of the moment, and others that came later."""
    known = {_client_of(connection) for connection in end.state.connections}
    return (*end.state.connections, *(c for c in late if _client_of(c) not in known))


def _asking(lab: Lab) -> str:
    text = f"sending requests to {', '.join(service.name for service in lab.services)}"
    lost = max((one.lost for one in lab.impairments), default=0.0)
    return f"{text}; a link loses {lost:g} %, so this takes longer" if lost else text


def _client_of(connection: Connection) -> tuple[object, ...]:
    place = (connection.vip, connection.vport, connection.mark)
    return connection.client, connection.client_port, place


def _first_requests(lab: Lab, one: _Asked, held: ExitStack) -> tuple[Exchange, ...]:
    """The requests that counters and distribution are judged by; they stay open in ``held``."""
    count = requests_needed(one.service, one.before)
    if lab.ecmp and one.left is None:  # each director is to get as many
        count *= len(lab.directors)
    return held.enter_context(
        _held(lab, one.service.endpoint, one.clients[0], count, one.used_ports, one.call)
    )


def _further_requests(lab: Lab, one: _Asked) -> None:
    """A large request for each real server, and ordinary ones of the other clients; at once.

    Over UDP, before them, several from one port.
    """
    room, endpoint = one.left, one.service.endpoint
    count = large = requests_for_each(one.service)
    answered = any(exchange.answered for exchange in one.exchanges)
    if endpoint.protocol is Protocol.UDP and room != 0:
        one.flow = client.flow(
            lab.netns(one.clients[0].name),
            endpoint.vip,
            endpoint.port,
            count=requests_needed(one.service, one.before),
            timeout=answer_timeout(lab, endpoint.protocol),
            avoid=one.used_ports,
            call=one.service.keeps_calls,
        )
        room = None if room is None else room - 1
    if one.service.keeps_calls and room is None:
        one.calls = at_once(
            lab, endpoint, one.clients[0], _CALL, avoid=one.used_ports, call=new_call()
        )
    if not answered or not endpoint.protocol.has_connections:
        large = 0
    elif room is not None:
        large = min(count, room)
        room -= large
    others = one.clients[1:]
    if room is not None:
        count = min(count, room // max(1, len(others)))
    # A real server that does not answer small requests is not judged by large ones.
    silent = any(exchange.error == Failure.TIMED_OUT for exchange in one.exchanges)
    connect = _SILENT + 8 * one_way(lab) if silent else inf

    def ask(node: Node) -> Probe:
        return Probe(
            node.name, at_once(lab, endpoint, node, count, avoid=one.used_ports, call=one.call)
        )

    def ask_at(other: VipPort) -> Joined:
        many = requests_for_each(one.service)
        return Joined(
            other, at_once(lab, other, one.clients[0], many, avoid=one.used_ports, call=one.call)
        )

    further = _few(one.service.endpoints[1:]) if room is None else ()
    with ThreadPoolExecutor(THREADS) as pool:
        asking = pool.map(ask, others if count else ())
        joining = pool.map(ask_at, further)
        if large:
            one.larges = at_once(
                lab,
                endpoint,
                one.clients[0],
                large,
                _LARGE_PATH,
                connect=connect,
                avoid=one.used_ports,
            )
        one.others = tuple(asking)
        one.joined = tuple(joining)


_CALL = 6
"""Requests of one SIP call, each from another port."""


def _few(endpoints: tuple[VipPort, ...]) -> tuple[VipPort, ...]:
    """Return some of many endpoints, those at both ends among them."""
    half = _FURTHER // 2
    return endpoints if len(endpoints) <= _FURTHER else (*endpoints[:half], *endpoints[-half:])


_FURTHER = 8
"""Ports and VIPs of one service that are asked besides the first."""


_HANDSHAKE = frozenset(
    {
        *("NONE", "SYN_SENT", "SYN_RECV", "SYNACK"),
        *("INIT1", "INIT", "COOKIE_SENT", "COOKIE_REPLIED", "COOKIE_WAIT", "COOKIE"),
    }
)
"""States of IPVS in which the client has not confirmed a connection yet (ip_vs_proto_tcp.c,
ip_vs_proto_sctp.c).

One that timed out later is in state CLOSE: the client resets it.
"""


def _wait_longer(lab: Lab, one: _Asked, table: Iterable[Connection]) -> None:
    """Repeat requests that timed out although their connections had been established."""
    established = {(c.client, c.client_port) for c in table if c.state not in _HANDSHAKE}
    hanging = [
        exchange
        for exchange in one.exchanges
        if exchange.error == Failure.TIMED_OUT
        and exchange.local is not None
        and (exchange.local.address, exchange.local.port) in established
    ]
    if hanging and one.left is None:
        count = requests_for_each(one.service)
        one.slow = at_once(
            lab,
            one.service.endpoint,
            one.clients[0],
            count,
            timeout=PATIENCE,
            avoid=one.used_ports,
            call=one.call,
        )


@contextmanager
def _held(
    lab: Lab,
    endpoint: VipPort,
    sender: Node,
    count: int,
    avoid: frozenset[int],
    call: str | None,
) -> Iterator[tuple[Exchange, ...]]:
    with client.held(
        lab.netns(sender.name),
        endpoint.vip,
        endpoint.port,
        count=count,
        protocol=endpoint.protocol,
        timeout=answer_timeout(lab, endpoint.protocol),
        connect=connect_timeout(lab),
        avoid=avoid,
        call=call,
        burst=_burst(lab),
    ) as exchanges:
        yield exchanges


def at_once(
    lab: Lab,
    endpoint: VipPort,
    sender: Node,
    count: int,
    path: str = "/",
    timeout: float = 0.0,
    connect: float = inf,
    avoid: frozenset[int] = frozenset(),
    call: str | None = None,
) -> tuple[Exchange, ...]:
    """Send requests, ``_AT_ONCE`` at the same time unless they hang.

    Each over a connection that is closed with its answer.
    """
    return client.requests(
        lab.netns(sender.name),
        endpoint.vip,
        endpoint.port,
        count=count,
        concurrency=max(1, min(count, _AT_ONCE)),
        protocol=endpoint.protocol,
        path=path,
        timeout=timeout or answer_timeout(lab, endpoint.protocol),
        connect=min(connect, connect_timeout(lab)),
        avoid=avoid,
        call=call,
        burst=_AT_ONCE,
    )


_AT_ONCE = 32
"""Requests at the same time: hundreds would wait for each other, and on a busy machine too long."""

_BACKLOG = 1000
"""Frames that a CPU holds for its devices before it drops any: net.core.netdev_max_backlog's
default."""


def _burst(lab: Lab) -> int:
    """How many requests may make nodes ask for neighbours at the same time.

    Each request to another real server has two asked for, and each question comes to all nodes.
    """
    return max(1, _BACKLOG // (2 * len(lab.nodes)))


_LARGE_PATH = "/?" + "x" * LARGE
"""The path of a request larger than a packet, which needs full-sized segments."""


def _in_table(table: NodeState, service: VirtualService) -> ServiceState | None:
    return next((found for found in table.services if found.match == service.match), None)


def one_way(lab: Lab) -> float:
    """Seconds that a frame needs to cross every network once."""
    slowest = (
        max(
            impairment.delay + impairment.jitter
            for impairment in (
                network.impairment,
                *(lab.impairment_of(node, network.name) for node in lab.nodes),
            )
        )
        for network in lab.networks
    )
    return sum(slowest) / 1000


def answer_timeout(lab: Lab, protocol: Protocol = Protocol.TCP) -> float:
    """Seconds to wait for a reply: of UDP no longer than for a connection of TCP."""
    if protocol is Protocol.UDP:
        return connect_timeout(lab)
    patience = _SCTP_PATIENCE if protocol is Protocol.SCTP else 2.0
    return patience + 8 * one_way(lab) + _for_losses(lab)


_SCTP_PATIENCE = 7.0
"""Seconds in which SCTP sends lost data again twice.

Its first retransmission comes after net.sctp.rto_initial, three seconds, also of a packet that was
too large for the path; TCP's comes at once then.
"""


def connect_timeout(lab: Lab) -> float:
    """Seconds to wait for a connection.

    A lost SYN is sent again after one and three seconds (RFC 6298, section 2). The kernel
    answers it: no process has to be scheduled.
    """
    return 1.3 + 8 * one_way(lab) + _for_losses(lab)


def _for_losses(lab: Lab) -> float:
    return 6.0 if any(impairment.lost for impairment in lab.impairments) else 0.0


_SILENT = 0.5
"""Seconds to wait for a connection where others, to a silent real server, have timed out."""
