"""The claims of every forwarding method, the faults that break them, and how each is decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, join_names, passed_if
from lvsctl.claims.distribution import (
    Expected,
    expected_distribution,
    hashed_choices,
    hashed_distribution,
    usable,
)
from lvsctl.claims.losses import sent_again
from lvsctl.claims.neighbours import wrong_neighbours
from lvsctl.claims.schedulers import Place
from lvsctl.claims.trace import Trace
from lvsctl.model.addresses import Endpoint, family_of
from lvsctl.model.claim import Verdict
from lvsctl.model.evidence import Exchange, Run
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Role
from lvsctl.model.service import ForwardingMethod, Protocol
from lvsctl.model.state import RealServerState, ServiceState

CLAIMS = ClaimTable()


@CLAIMS.add(
    "all.requests-answered",
    "every request to the VIP is answered, and only by real servers of the service",
    broken_by=("vip-missing-on-director", "service-stopped", "stale-vip-neighbour"),
    needs_frames=False,
)
def requests_answered(trace: Trace) -> CheckResult:
    """Count the answers: one for each request, each from a real server of the service."""
    seen = trace.run
    total = len(seen.exchanges)
    expected = f"{total} of {total} requests answered, by {_names(seen)}"
    failures = Counter(exchange.error for exchange in seen.exchanges if not exchange.answered)
    failures.update(f"HTTP {e.status}" for e in seen.answered if e.server_error)
    others = sorted(
        {exchange.node or "an unnamed server" for exchange in seen.answered} - set(_known(seen))
    )
    observed = [f"{len(seen.answered)} of {total} answered"]
    observed += [f"{count} {error}" for error, count in sorted(failures.items())]
    if others:
        observed.append(f"answers from {', '.join(others)}")
    return passed_if(total > 0 and not failures and not others, expected, ", ".join(observed))


@CLAIMS.add(
    "all.interfaces-up",
    "every node has its interfaces, by the names of their networks, and they are up",
    broken_by=("real-server-down",),
    needs_requests=False,
    needs_frames=False,
)
def interfaces_up(trace: Trace) -> CheckResult:
    """Look at each interface that the topology names, and at lo where it holds the VIP."""
    lab = trace.evidence.lab
    servers = {server.node for server in trace.real_servers}
    count, wrong = 0, []
    for node in lab.nodes:
        state = trace.evidence.states.get(node.name)
        if state is None or (node.role is Role.REAL_SERVER and node.name not in servers):
            continue
        lo = ("lo",) if "lo" in trace.holds(node.name, trace.run.endpoint.vip) else ()
        for device in (*node.networks, *lo):
            count += 1
            link = state.link(device)
            if link is None:
                wrong.append(f"{node.name} has no {device}")
            elif not (link.up and link.carrier):
                wrong.append(f"{node.name}: {device} {'has no carrier' if link.up else 'is down'}")
    if not count:
        return inconclusive("every interface is up", "no node's state was read")
    return passed_if(not wrong, f"{count} interfaces up", "; ".join(wrong) or f"{count} up")


def _has_other_clients(trace: Trace) -> bool:
    return bool(trace.run.others)


@CLAIMS.add(
    "all.every-client-answered",
    "every client that reaches the VIP is answered",
    unbroken="a fault at one client breaks it only where the lab has several",
    applies=_has_other_clients,
    needs_frames=False,
)
def every_client_answered(trace: Trace) -> CheckResult:
    """Count the answers of the clients that did not send the run's own requests."""
    others = trace.run.others
    names = join_names([other.client for other in others])
    failed = [
        f"{other.client}: {len(lost)} of {len(other.exchanges)} {lost[0].error or 'server error'}"
        for other in others
        if (lost := [e for e in other.exchanges if not e.answered or e.server_error])
    ]
    total = sum(len(other.exchanges) for other in others)
    observed = "; ".join(failed) or f"{total} of {total} requests of {names} answered"
    return passed_if(not failed, f"requests of {names} answered", observed)


def _has_large(trace: Trace) -> bool:
    return bool(trace.run.larges)


@CLAIMS.add(
    "all.large-requests-answered",
    "a request larger than a packet is answered by every real server that answers small ones",
    broken_by=("icmp-filtered",),
    unbroken="a path on which every packet fits does not lose the large ones alone",
    applies=_has_large,
    needs_frames=False,
)
def large_requests_answered(trace: Trace) -> CheckResult:
    """Look at the large requests of real servers that answered every small one they were given.

    lvsctl's own servers reply with as many bytes, so that both ways are tried.
    """
    seen = trace.run
    silent = {trace.assigned(e) for e in seen.exchanges if not e.answered}
    judged = [e for e in seen.larges if e.answered or trace.assigned(e) not in silent]
    lost = [e for e in judged if not e.answered]
    expected = f"{len(judged)} of {len(judged)} answered"
    if not judged:
        return inconclusive("large requests answered", "no real server answers even small ones")
    names = sorted({trace.assigned(e) or "a real server" for e in lost})
    observed = f"{len(judged) - len(lost)} of {len(judged)} answered"
    observed += f"; {lost[0].error}: {', '.join(names)}" if lost else ""
    return passed_if(not lost, expected, observed)


def _loses_nothing(trace: Trace) -> bool:
    """Whether the topology itself asks for nothing that makes TCP send again what it has sent.

    Segments that arrive out of order do: they look lost (RFC 5681, section 3.2).
    """
    undisturbed = not (trace.planned_loss or trace.disturbed)
    return undisturbed and trace.run.endpoint.protocol is Protocol.TCP


@CLAIMS.add(
    "all.nothing-sent-again",
    "no packet of an answered request is lost: none has to be sent a second time",
    unbroken=(
        "whether a damaged frame has to be sent again is chance; every other fault stops packets "
        "always, and then the request is not answered"
    ),
    applies=_loses_nothing,
)
def nothing_sent_again(trace: Trace) -> CheckResult:
    """Find segments that were sent twice, because the first copy or its reply was lost."""
    answered = [c for c in trace.conversations if c.exchange.answered]
    expected = "each segment of an answered request sent once"
    if not any(c.requests for c in answered):
        return inconclusive(expected, "no request was answered")
    again = [frames for c in answered if (frames := sent_again(trace, c))]
    shown = [frame for frames in again for frame in frames]
    observed = f"{len(again)} of {len(answered)} answered requests needed a packet sent again"
    return passed_if(not again, expected, observed, shown[:2])


@CLAIMS.add(
    "all.neighbours-right",
    "before the requests, no node had learnt a wrong MAC address",
    broken_by=("stale-neighbour", "stale-vip-neighbour"),
    unbroken="with `ha: ecmp`, routes to the VIP lead to the directors' own addresses",
    applies=lambda trace: bool(trace.evidence.before),
    needs_requests=False,
    needs_frames=False,
)
def neighbours_right(trace: Trace) -> CheckResult:
    """Compare neighbour entries with the MAC addresses of the nodes that have the addresses."""
    wrong = [str(one) for one in wrong_neighbours(trace.evidence)]
    count = sum(len(state.neighbours) for state in trace.evidence.before.values())
    return passed_if(
        not wrong,
        "every entry leads to the node that has the address",
        "; ".join(wrong[:3]) or f"{count} entries, none wrong",
    )


@CLAIMS.add(
    "all.real-servers-reached",
    "every real server that the scheduler may choose answers through the VIP",
    broken_by=("real-server-removed", "real-server-drained", "real-server-down"),
    needs_frames=False,
)
def real_servers_reached(trace: Trace) -> CheckResult:
    """Compare who answered with the real servers that the scheduler's definition predicts."""
    seen = trace.run
    prediction = _prediction(seen)
    answered = _answers(seen)
    node_at = _namer(seen)
    if not prediction.exact:
        names = [node_at(place) for place in usable(seen.service)]
        unchosen = [name for name in names if not answered[name]]
        return passed_if(
            any(answered[name] for name in names) and not _drained_answers(seen),
            f"{prediction.text}: one of {', '.join(names)}",
            _counts(answered)
            + (f"; not chosen, so not judged: {', '.join(unchosen)}" if unchosen else ""),
        )
    outcomes = (prediction.shares, *prediction.others)
    wanted = [node_at(p) for p in prediction.shares if all(shares[p] for shares in outcomes)]
    silent = [name for name in sorted(wanted) if not answered[name]]
    # It may be one or the other, by what the scheduler remembers of earlier connections.
    either = [node_at(p) for p in prediction.shares if any(shares[p] for shares in outcomes)]
    whom = ", ".join(sorted(wanted)) or f"one of {', '.join(sorted(either))}"
    return passed_if(
        not silent and any(answered[name] for name in wanted or either),
        f"answers from {whom}",
        _counts(answered) + (f"; nothing from {', '.join(silent)}" if silent else ""),
    )


@CLAIMS.add(
    "all.distribution",
    "connections are distributed according to scheduler, weights, thresholds and persistence",
    broken_by=(
        "scheduler-changed",
        "scheduler-flag-missing",
        "no-fallback",
        "weight-changed",
        "persistence-added",
        "persistence-missing",
        "threshold-missing",
    ),
    needs_frames=False,
)
def distribution(trace: Trace) -> CheckResult:
    """Compare the answers of each real server with the scheduler's definition."""
    seen = trace.run
    prediction = _prediction(seen)
    answered = _answers(seen)
    observed = _counts(answered)
    node_at = _namer(seen)
    if not answered:
        return inconclusive(prediction.text, "no request was answered")
    if not prediction.exact:
        holds = not _drained_answers(seen) and (not prediction.one or len(answered) == 1)
        return passed_if(holds, prediction.text, observed)
    misplaced = list(_misplaced(seen))
    if misplaced:
        observed += f"; {misplaced[0]}" + (f" and {len(misplaced) - 1} more" * (len(misplaced) > 1))
    fitting = prediction.fitting({p: answered[node_at(p)] for p in prediction.shares})
    holds = fitting is not None and not misplaced
    told = fitting or prediction.shares
    shares = {node_at(place): share for place, share in told.items()}
    expected = f"{_counts(shares)} ({seen.service.scheduler}: {prediction.text})"
    if prediction.most:
        expected = f"{seen.service.scheduler}: {prediction.text}"
    return _unless_disturbed(trace, passed_if(holds, expected, observed))


@CLAIMS.add(
    "all.counters-agree",
    "IPVS counts, for each real server, the connections that it answered according to the client",
    broken_by=("director-bypassed", "service-stopped"),
    needs_frames=False,
)
def counters_agree(trace: Trace) -> CheckResult:
    """Compare IPVS's connection counters of each real server with the client's answers."""
    seen = trace.run
    if seen.before is None or seen.after is None:
        return _no_table(seen)
    answered = _answers(seen)
    if not answered:
        return inconclusive("some answers", "no request was answered")
    node_at = _namer(seen)
    grown = {
        node_at(place): after.counters.connections - before.counters.connections
        for place, (before, after) in _pairs(seen.before, seen.after).items()
    }
    expected = {name: answered[name] for name in grown}
    result = passed_if(
        grown == expected and set(answered) <= set(grown),
        f"connections: {_counts(expected)}",
        f"connections: {_counts(grown)}",
    )
    return _unless_disturbed(trace, result)


@CLAIMS.add(
    "all.reply-path-counted",
    "the director counts reply packets in NAT, and none in TUN and DR",
    broken_by=("service-missing",),
    unbroken="with `ha: ecmp`, the other active directors go on counting",
    needs_frames=False,
)
def reply_path_counted(trace: Trace) -> CheckResult:
    """Compare IPVS's counters of both directions: replies cross the director only in NAT.

    Those of the director itself, as a real server, are counted too (ip_vs_out_hook in LOCAL_OUT).
    """
    seen = trace.run
    if seen.before is None or seen.after is None:
        return _no_table(seen)
    node_at = _namer(seen)
    crossing = (*seen.service.by(ForwardingMethod.NAT), *seen.service.local)
    nat = {(s.rip, s.port) for s in crossing}
    direct = {(s.rip, s.port) for s in seen.service.real_servers} - nat
    expected = "reply packets counted" if nat else "request packets counted, no reply packets"
    if nat and direct:
        names = sorted(node_at(place) for place in nat)
        expected = f"reply packets counted of {join_names(names)} only"
    pairs = _pairs(seen.before, seen.after).items()
    requests = sum(a.counters.packets_in - b.counters.packets_in for _, (b, a) in pairs)
    given = sum(a.counters.packets_in - b.counters.packets_in for p, (b, a) in pairs if p in nat)
    crossed, astray = (
        sum(
            a.counters.packets_out - b.counters.packets_out
            for place, (b, a) in pairs
            # A real server that the topology does not have gets replies as the others do.
            if place in places or not (nat and direct)
        )
        if places
        else 0
        for places in (nat, direct)
    )
    observed = f"{requests} request packets, {crossed + astray} reply packets"
    if nat and direct:
        observed = f"{requests} request packets, {crossed} reply packets, {astray} of the others"
    errors = len(_errors(trace)[1])
    if errors:
        # Those about requests to real servers whose replies do not cross are counted as astray.
        room = COUNTED * errors
        astray, crossed = max(0, astray - room), max(0, crossed - max(0, room - astray))
        observed += f", including up to {_icmp(errors)}"
    if not requests or not seen.answered:
        # No reply counted proves nothing unless requests were, and were answered.
        return inconclusive(expected, observed)
    answered = _answers(seen)
    silent = nat and not any(answered[node_at(place)] for place in nat)
    if direct and given and silent and not astray:
        return inconclusive(expected, f"{observed}; none of those answered")
    # A scheduler may have chosen none of those that are forwarded to by NAT.
    nothing_due = not nat or (bool(direct) and not given)
    return passed_if((crossed > 0) is not nothing_due and not astray, expected, observed)


def _keeps_connections(trace: Trace) -> bool:
    return not trace.run.service.one_packet


@CLAIMS.add(
    "all.connection-table-agrees",
    "the connection table maps each client connection to the real server that answered it",
    broken_by=("director-bypassed", "one-packet-scheduling"),
    unbroken="in NAT a reply reaches the client only through an entry of the table",
    applies=_keeps_connections,
    needs_frames=False,
)
def connection_table_agrees(trace: Trace) -> CheckResult:
    """Look up each of the client's connections in the director's connection table."""
    seen = trace.run
    asked = (seen.endpoint.protocol, seen.endpoint.vip, seen.endpoint.port)
    table = {
        (c.client, c.client_port): (c.rip, c.rport)
        for c in seen.connections
        if (c.protocol, c.vip, c.vport) == asked and c.client_port
    }
    total = len(seen.answered)
    expected = f"{total} of {total} connections mapped to the real server that answered"
    if not total:
        return inconclusive("connections in the table", "no request was answered")
    node_at = _namer(seen)
    agreeing = sum(1 for exchange in seen.answered if _leads(node_at, table, exchange))
    return passed_if(agreeing == total, expected, f"{agreeing} of {total}")


@CLAIMS.add(
    "all.frames-agree",
    "IPVS counts as many packets as were captured at the director, and no frame was lost",
    broken_by=("service-missing",),
)
def frames_agree(trace: Trace) -> CheckResult:
    """Compare IPVS's packet counters with the service's packets captured at the director.

    Packets of every client count. Late packets of an earlier connection may count: IPVS drops
    them uncounted if the connection's real server was removed, and ignores those of
    connections that it does not know (net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_hook).
    """
    seen = trace.run
    if trace.evidence.dropped:
        # Incomplete captures cannot be compared with counters.
        return inconclusive("no frame lost", f"{trace.evidence.dropped} frames lost")
    if not trace.evidence.taps:
        return inconclusive("packets captured at the director", "nothing was captured")
    if seen.before is None or seen.after is None:
        return _no_table(seen)
    pairs = _pairs(seen.before, seen.after).values()
    counted_in = sum(a.counters.packets_in - b.counters.packets_in for b, a in pairs)
    counted_out = sum(a.counters.packets_out - b.counters.packets_out for b, a in pairs)
    takes = seen.service.takes
    passing = [
        frame
        for frame in trace.at_directors()
        if frame.flow is not None
        and frame.flow.protocol == seen.endpoint.protocol.number
        and seen.counts(frame)
    ]
    clients_in = [f.flow.src for f in passing
                  if f.direction is Direction.IN and f.flow and takes(f.flow.dst)]  # fmt: skip
    clients_out = [f.flow.dst for f in passing
                   if f.direction is Direction.OUT and f.flow and takes(f.flow.src)]  # fmt: skip
    current = trace.client_endpoints
    came, went = (sum(c in current for c in clients) for clients in (clients_in, clients_out))
    late_in, late_out = len(clients_in) - came, len(clients_out) - went
    errors_in, errors_out = map(len, _errors(trace))
    expected = f"IPVS counts {came} packets in, {went} out"
    if late_in or late_out:
        expected += f", and up to {late_in + late_out} late packets of earlier connections"
    if errors_in or errors_out:
        expected += f", and up to {_icmp(errors_in + errors_out)}"
    observed = f"{counted_in} in, {counted_out} out"
    if not came:
        return inconclusive(expected, "no request reached the director")
    if trace.planned_loss:
        # A queue drops what it loses before it is captured, and after IPVS has counted it.
        late_out += max(0, counted_out - went)
    holds = (
        0 <= counted_in - came <= COUNTED * errors_in + late_in
        and 0 <= counted_out - went <= COUNTED * errors_out + late_out
    )
    return passed_if(holds, expected, observed)


COUNTED = 2
"""Times that IPVS counts an ICMP error at most: twice if it translates a tunnel's error."""


def _icmp(number: int) -> str:
    return f"{number} ICMP error{'' if number == 1 else 's'}"


def _errors(trace: Trace) -> tuple[list[Frame], list[Frame]]:
    """ICMP errors about the service's connections that crossed the director: IPVS counts them too.

    Errors about a reply count as packets in, errors about a request (no route to a real
    server, TTL exceeded, packet too big) as packets out (net/netfilter/ipvs/ip_vs_core.c,
    ip_vs_in_icmp and ip_vs_out_icmp, and the same for IPv6). Those about a tunnel are counted as
    they come, also where the limit of its own ICMP messages (icmp_ratelimit) keeps the director
    from passing them on.
    """
    seen = trace.run
    service = seen.service
    servers = {Endpoint(s.rip, s.answers_at(one)) for one in service.endpoints
               for s in service.real_servers}  # fmt: skip
    tunnelled = {server.rip for server in service.by(ForwardingMethod.TUN)}
    about_replies: list[Frame] = []
    about_requests: list[Frame] = []
    about_tunnels: list[Frame] = []
    for frame in trace.at_directors():
        icmp, quoted = frame.icmp, frame.icmp.quoted if frame.icmp else None
        if icmp is None or quoted is None or not seen.counts(frame):
            continue
        if frame.outer is None or icmp.type not in family_of(frame.outer.dst).icmp_errors:
            continue
        flow = quoted.flow
        if frame.direction is Direction.IN:
            if quoted.ips and quoted.ips[0].dst in tunnelled:
                about_tunnels.append(frame)
        elif frame.direction is Direction.OUT and flow is not None:
            if service.takes(flow.dst):
                about_requests.append(frame)
            elif service.takes(flow.src) or flow.src in servers:
                about_replies.append(frame)
    return about_replies, max(about_requests, about_tunnels, key=len)


def _unless_disturbed(trace: Trace, result: CheckResult) -> CheckResult:
    """A mismatch is inconclusive if other clients used the service at the same time."""
    if result.verdict is not Verdict.FAIL or not trace.other_clients:
        return result
    count = len(trace.other_clients)
    observed = f"{result.observed}; {count} connection{'s' * (count != 1)} of other clients"
    return inconclusive(result.expected, observed)


def _leads(
    node_at: Callable[[Place], str], table: Mapping[Place, Place], exchange: Exchange
) -> bool:
    if exchange.local is None:
        return False
    place = table.get((exchange.local.address, exchange.local.port))
    return place is not None and node_at(place) == exchange.node


def _prediction(seen: Run) -> Expected:
    choices = _choices(seen)
    if choices is not None:
        return hashed_distribution(seen.service, choices)
    return expected_distribution(seen.service, seen.before, len(seen.exchanges))


def _choices(seen: Run) -> tuple[Place | None, ...] | None:
    clients = [exchange.local for exchange in seen.exchanges]
    if not seen.tables:
        return hashed_choices(seen.service, seen.before, clients)
    found: list[Place | None] = []
    for client in clients:  # each director added the real servers in an order of its own
        choice = hashed_choices(seen.service, _table_of(seen, client), [client])
        if choice is None:
            return None
        found += choice
    return tuple(found)


def _table_of(seen: Run, client: Endpoint | None) -> ServiceState | None:
    """Return the table of the director that handled a connection; of all if none did."""
    for table in seen.tables:
        if any(client == Endpoint(one.client, one.client_port) for one in table.connections):
            return table.before
    return seen.before


def _misplaced(seen: Run) -> Iterator[str]:
    """Connections that a hash gives to another real server than the one that answered."""
    node_at = _namer(seen)
    for exchange, place in zip(seen.exchanges, _choices(seen) or (), strict=False):
        wanted = "none" if place is None else node_at(place)
        if exchange.answered and exchange.node != wanted:
            yield f"{exchange.local}: {exchange.node}, not {wanted}"


def _drained_answers(seen: Run) -> bool:
    """Whether a real server with weight 0 answered."""
    drained = {*_known(seen)}.difference(map(_namer(seen), usable(seen.service)))
    return any(name in drained for name in _answers(seen))


def _answers(seen: Run) -> Counter[str]:
    return Counter(exchange.node for exchange in seen.answered)


def _known(seen: Run) -> tuple[str, ...]:
    return tuple(server.node for server in seen.service.real_servers)


def _names(seen: Run) -> str:
    return ", ".join(_known(seen))


def _namer(seen: Run) -> Callable[[Place], str]:
    """Return what names the node at a place, or the place itself if no real server is there."""
    nodes: dict[Place, str] = {}
    for server in seen.service.real_servers:
        for port in (server.port, server.answers_at(seen.endpoint)):
            nodes.setdefault((server.rip, port), server.node)
    return lambda place: nodes.get(place) or f"{place[0]}:{place[1]}"


def _counts(by_name: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(by_name.items())) or "nothing"


def _no_table(seen: Run) -> CheckResult:
    return passed_if(
        False,
        f"{seen.service.match} in the director's IPVS table",
        "it does not exist",
    )


def _pairs(
    before: ServiceState, after: ServiceState
) -> dict[Place, tuple[RealServerState, RealServerState]]:
    earlier = {(s.rip, s.port): s for s in before.real_servers}
    return {
        (s.rip, s.port): (earlier[s.rip, s.port], s)
        for s in after.real_servers
        if (s.rip, s.port) in earlier
    }
