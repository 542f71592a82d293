"""How the claims of every forwarding method are decided: pure functions of a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from lvsctl.claims.distribution import Expected, expected_distribution, usable
from lvsctl.claims.schedulers import Place
from lvsctl.claims.trace import Trace
from lvsctl.model.claim import Claim
from lvsctl.model.evidence import Run
from lvsctl.model.exchange import Endpoint, Exchange
from lvsctl.model.finding import Judgement, Verdict, judged, undecided
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.service import ForwardingMethod
from lvsctl.model.state import RealServerState, ServiceState
from lvsctl.modes import every

Judge = Callable[[Trace], Judgement]


def requests_answered(trace: Trace) -> Judgement:
    """Every request got an answer, each from a node that the service names."""
    seen = trace.run
    total = len(seen.exchanges)
    expected = f"{total} of {total} requests answered, by {_names(seen)}"
    failures = Counter(exchange.error for exchange in seen.exchanges if not exchange.answered)
    strangers = sorted(
        {exchange.node or "someone unnamed" for exchange in seen.answered} - set(_known(seen))
    )
    observed = [f"{len(seen.answered)} of {total} answered"]
    observed += [f"{count} {error}" for error, count in sorted(failures.items())]
    if strangers:
        observed.append(f"answers from {', '.join(strangers)}")
    return judged(total > 0 and not failures and not strangers, expected, ", ".join(observed))


def real_servers_reached(trace: Trace) -> Judgement:
    """Who may be chosen was chosen, as far as the scheduler's definition says who that is."""
    seen = trace.run
    prediction = _prediction(seen)
    answered = _answers(seen)
    if not prediction.exact:
        names = [_name(seen, place) for place in usable(seen.service)]
        return judged(
            any(answered[name] for name in names) and not _drained_answers(seen),
            f"{prediction.says}: one of {', '.join(names)}",
            _counts(answered),
        )
    outcomes = (prediction.shares, *prediction.others)
    wanted = [_name(seen, p) for p in prediction.shares if all(shares[p] for shares in outcomes)]
    silent = [name for name in sorted(wanted) if not answered[name]]
    return judged(
        bool(wanted) and not silent,
        f"answers from {', '.join(sorted(wanted)) or 'somebody'}",
        _counts(answered) + (f"; nothing from {', '.join(silent)}" if silent else ""),
    )


def distribution(trace: Trace) -> Judgement:
    """The answers, counted by real server, are what the scheduler's definition predicts."""
    seen = trace.run
    prediction = _prediction(seen)
    answered = _answers(seen)
    observed = _counts(answered)
    if not answered:
        return undecided(prediction.says, "no request was answered")
    if not prediction.exact:
        holds = not _drained_answers(seen) and (not prediction.one or len(answered) == 1)
        return judged(holds, prediction.says, observed)
    fitting = prediction.fitting({p: answered[_name(seen, p)] for p in prediction.shares})
    holds = fitting is not None
    told = fitting or prediction.shares
    shares = {_name(seen, place): share for place, share in told.items()}
    expected = f"{_counts(shares)} ({seen.service.scheduler}: {prediction.says})"
    return _undisturbed(trace, judged(holds, expected, observed))


def counters_agree(trace: Trace) -> Judgement:
    """IPVS's connection counters of each real server grew by what the client counted."""
    seen = trace.run
    if seen.before is None or seen.after is None:
        return _no_table(seen)
    answered = _answers(seen)
    if not answered:
        return undecided("some answers", "no request was answered")
    grown = {
        _name(seen, place): after.counters.connections - before.counters.connections
        for place, (before, after) in _pairs(seen.before, seen.after).items()
    }
    expected = {name: answered[name] for name in grown}
    judgement = judged(
        grown == expected and set(answered) <= set(grown),
        f"connections: {_counts(expected)}",
        f"connections: {_counts(grown)}",
    )
    return _undisturbed(trace, judgement)


def reply_path_counted(trace: Trace) -> Judgement:
    """IPVS saw the replies in NAT, where they cross it, and none in TUN and DR."""
    seen = trace.run
    if seen.before is None or seen.after is None:
        return _no_table(seen)
    nat = seen.service.forward is ForwardingMethod.NAT
    expected = "reply packets counted" if nat else "request packets counted, no reply packets"
    requests, replies = (
        sum(
            getattr(after.counters, direction) - getattr(before.counters, direction)
            for before, after in _pairs(seen.before, seen.after).values()
        )
        for direction in ("packets_in", "packets_out")
    )
    observed = f"{requests} request packets, {replies} reply packets"
    errors = len(_errors(trace)[1])
    if errors:
        replies = max(0, replies - COUNTED * errors)
        observed += f", perhaps {_icmp(errors)} among them"
    if not requests or not seen.answered:
        # No reply counted proves nothing unless requests were, and were answered.
        return undecided(expected, observed)
    return judged((replies > 0) is nat, expected, observed)


def connection_table_agrees(trace: Trace) -> Judgement:
    """Each of the client's connections stands in the table, leading to who answered it."""
    seen = trace.run
    table = {
        (c.client, c.client_port): (c.rip, c.rport)
        for c in seen.connections
        if (c.protocol, c.vip, c.vport)
        == (seen.service.key.protocol, seen.service.vip, seen.service.key.port)
        and c.client_port
    }
    total = len(seen.answered)
    expected = f"{total} of {total} connections lead to the real server that answered"
    if not total:
        return undecided("some connections", "no request was answered")
    agreeing = sum(1 for exchange in seen.answered if _leads(seen, table, exchange))
    return judged(agreeing == total, expected, f"{agreeing} of {total}")


def frames_agree(trace: Trace) -> Judgement:
    """IPVS's packet counters against the service's packets captured at the director.

    Every client's packets count. Late ones of an earlier connection may: IPVS drops them
    uncounted where the connection's real server was removed, and leaves alone those of
    connections that it does not know (net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_hook).
    """
    seen = trace.run
    if trace.evidence.dropped:
        # A count of what was captured says nothing about the lab where not all of it was.
        return undecided("no frame lost", f"{trace.evidence.dropped} frames lost")
    if not trace.evidence.taps:
        return undecided("packets captured at the director", "nothing was captured")
    if seen.before is None or seen.after is None:
        return _no_table(seen)
    pairs = _pairs(seen.before, seen.after).values()
    counted_in = sum(a.counters.packets_in - b.counters.packets_in for b, a in pairs)
    counted_out = sum(a.counters.packets_out - b.counters.packets_out for b, a in pairs)
    vip = Endpoint(seen.service.vip, seen.service.key.port)
    passing = [
        frame
        for frame in trace.at(trace.director)
        if frame.flow is not None and seen.began <= frame.time <= seen.ended
    ]
    clients_in = [f.flow.src for f in passing
                  if f.direction is Direction.IN and f.flow and f.flow.dst == vip]  # fmt: skip
    clients_out = [f.flow.dst for f in passing
                   if f.direction is Direction.OUT and f.flow and f.flow.src == vip]  # fmt: skip
    askers = trace.askers
    came, went = (sum(c in askers for c in clients) for clients in (clients_in, clients_out))
    late_in, late_out = len(clients_in) - came, len(clients_out) - went
    errors_in, errors_out = map(len, _errors(trace))
    expected = f"IPVS counts {came} packets in, {went} out"
    if late_in or late_out:
        expected += f", and perhaps {late_in + late_out} late ones of earlier connections"
    if errors_in or errors_out:
        expected += f", and perhaps {_icmp(errors_in + errors_out)}"
    observed = f"{counted_in} in, {counted_out} out"
    if not came:
        return undecided(expected, "no request reached the director")
    holds = (
        0 <= counted_in - came <= COUNTED * errors_in + late_in
        and 0 <= counted_out - went <= COUNTED * errors_out + late_out
    )
    return judged(holds, expected, observed)


COUNTED = 2
"""How often IPVS counts an ICMP error at most: one that it makes of a tunnel's error, twice."""


def _icmp(number: int) -> str:
    return f"{number} ICMP error{'' if number == 1 else 's'}"


def _errors(trace: Trace) -> tuple[list[Frame], list[Frame]]:
    """ICMP errors that left the director about the service's connections: IPVS counts them too.

    Those about a reply count as packets in, those about a request (no route to a real
    server, TTL exceeded, fragmentation needed) as packets out
    (net/netfilter/ipvs/ip_vs_core.c, ip_vs_in_icmp and ip_vs_out_icmp).
    """
    seen = trace.run
    vip = Endpoint(seen.service.vip, seen.service.key.port)
    servers = {Endpoint(server.rip, server.port) for server in seen.service.real_servers}
    about_replies: list[Frame] = []
    about_requests: list[Frame] = []
    for frame in trace.at(trace.director):
        if frame.direction is not Direction.OUT or not seen.began <= frame.time <= seen.ended:
            continue
        icmp = frame.icmp
        # Unreachable, source quench, time exceeded: IPVS looks at no other message.
        quoted = icmp.quoted.flow if icmp and icmp.quoted and icmp.type in (3, 4, 11) else None
        if quoted is not None and quoted.dst == vip:
            about_requests.append(frame)
        elif quoted is not None and quoted.src in {vip, *servers}:
            about_replies.append(frame)
    return about_replies, about_requests


JUDGES: Mapping[Claim, Judge] = {
    every.ANSWERS: requests_answered,
    every.REACHED: real_servers_reached,
    every.DISTRIBUTION: distribution,
    every.COUNTERS: counters_agree,
    every.REPLIES: reply_path_counted,
    every.CONNECTIONS: connection_table_agrees,
    every.FRAMES: frames_agree,
}
"""Who decides each claim."""


def _undisturbed(trace: Trace, judgement: Judgement) -> Judgement:
    """What does not agree proves nothing where others used the service at the same time."""
    if judgement.verdict is not Verdict.FAIL or not trace.strangers:
        return judgement
    count = len(trace.strangers)
    observed = f"{judgement.observed}; {count} other connection{'s' * (count != 1)} came in between"
    return undecided(judgement.expected, observed)


def _leads(seen: Run, table: Mapping[Place, Place], exchange: Exchange) -> bool:
    if exchange.local is None:
        return False
    place = table.get((exchange.local.address, exchange.local.port))
    return place is not None and _name(seen, place) == exchange.node


def _prediction(seen: Run) -> Expected:
    return expected_distribution(seen.service, seen.before, len(seen.exchanges))


def _drained_answers(seen: Run) -> bool:
    """Whether a real server with weight 0 answered."""
    able = {_name(seen, place) for place in usable(seen.service)}
    return any(name in _known(seen) and name not in able for name in _answers(seen))


def _answers(seen: Run) -> Counter[str]:
    return Counter(exchange.node for exchange in seen.answered)


def _known(seen: Run) -> tuple[str, ...]:
    return tuple(server.node for server in seen.service.real_servers)


def _names(seen: Run) -> str:
    return ", ".join(_known(seen))


def _name(seen: Run, place: Place) -> str:
    """The node at ``place``, or the place itself where the topology has nobody there."""
    for server in seen.service.real_servers:
        if (server.rip, server.port) == place:
            return server.node
    return f"{place[0]}:{place[1]}"


def _counts(by_name: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(by_name.items())) or "nothing"


def _no_table(seen: Run) -> Judgement:
    return judged(
        False,
        f"{seen.service.key} in the director's IPVS table",
        "it is not there",
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
