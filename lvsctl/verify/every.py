"""One judge for each claim: pure functions from evidence to a judgement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from lvsctl.model.evidence import Evidence
from lvsctl.model.exchange import Exchange
from lvsctl.model.finding import Claim, Judgement, Verdict, judged
from lvsctl.model.service import ForwardingMethod
from lvsctl.model.state import RealServerState, ServiceState
from lvsctl.modes import every
from lvsctl.verify.distribution import Expected, Place, expected_distribution, usable

Judge = Callable[[Evidence], Judgement]


def requests_answered(seen: Evidence) -> Judgement:
    """Every request got an answer, each from a node that the service names."""
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


def real_servers_reached(seen: Evidence) -> Judgement:
    """Who may be chosen was chosen, as far as the scheduler's definition says who that is."""
    prediction = _prediction(seen)
    answered = _answers(seen)
    if not prediction.exact:
        names = [_name(seen, place) for place in usable(seen.service)]
        return judged(
            any(answered[name] for name in names) and not _drained_answers(seen),
            f"{prediction.says}: one of {', '.join(names)}",
            _counts(answered),
        )
    wanted = [_name(seen, place) for place, share in prediction.shares.items() if share]
    silent = [name for name in sorted(wanted) if not answered[name]]
    return judged(
        bool(wanted) and not silent,
        f"answers from {', '.join(sorted(wanted)) or 'somebody'}",
        _counts(answered) + (f"; nothing from {', '.join(silent)}" if silent else ""),
    )


def distribution(seen: Evidence) -> Judgement:
    """The answers, counted by real server, are what the scheduler's definition predicts."""
    prediction = _prediction(seen)
    answered = _answers(seen)
    observed = _counts(answered)
    if not answered:
        return Judgement(Verdict.INCONCLUSIVE, prediction.says, "no request was answered")
    if not prediction.exact:
        holds = not _drained_answers(seen) and (not prediction.one or len(answered) == 1)
        return judged(holds, prediction.says, observed)
    shares = {_name(seen, place): share for place, share in prediction.shares.items()}
    holds = all(
        abs(answered[name] - share) <= prediction.slack and (share > 0 or not answered[name])
        for name, share in shares.items()
    )
    return judged(
        holds,
        f"{_counts(shares)} ({seen.service.scheduler}: {prediction.says})",
        observed,
    )


def counters_agree(seen: Evidence) -> Judgement:
    """IPVS's connection counters of each real server grew by what the client counted."""
    if seen.before is None or seen.after is None:
        return _no_table(seen)
    answered = _answers(seen)
    if not answered:
        return Judgement(Verdict.INCONCLUSIVE, "some answers", "no request was answered")
    grown = {
        _name(seen, place): after.counters.connections - before.counters.connections
        for place, (before, after) in _pairs(seen.before, seen.after).items()
    }
    expected = {name: answered[name] for name in grown}
    return judged(
        grown == expected and set(answered) <= set(grown),
        f"connections: {_counts(expected)}",
        f"connections: {_counts(grown)}",
    )


def reply_path_counted(seen: Evidence) -> Judgement:
    """IPVS saw the replies in NAT, where they cross it, and none in TUN and DR."""
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
    if not requests or not seen.answered:
        # No reply counted proves nothing unless requests were, and were answered.
        return Judgement(Verdict.INCONCLUSIVE, expected, observed)
    return judged((replies > 0) is nat, expected, observed)


def connection_table_agrees(seen: Evidence) -> Judgement:
    """Each of the client's connections stands in the table, leading to who answered it."""
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
        return Judgement(Verdict.INCONCLUSIVE, "some connections", "no request was answered")
    agreeing = sum(1 for exchange in seen.answered if _leads(seen, table, exchange))
    return judged(agreeing == total, expected, f"{agreeing} of {total}")


JUDGES: Mapping[Claim, Judge] = {
    every.ANSWERS: requests_answered,
    every.REACHED: real_servers_reached,
    every.DISTRIBUTION: distribution,
    every.COUNTERS: counters_agree,
    every.REPLIES: reply_path_counted,
    every.CONNECTIONS: connection_table_agrees,
}
"""Who decides each claim."""


def _leads(seen: Evidence, table: Mapping[Place, Place], exchange: Exchange) -> bool:
    if exchange.local is None:
        return False
    place = table.get((exchange.local.address, exchange.local.port))
    return place is not None and _name(seen, place) == exchange.node


def _prediction(seen: Evidence) -> Expected:
    return expected_distribution(seen.service, seen.before, len(seen.exchanges))


def _drained_answers(seen: Evidence) -> bool:
    """Whether a real server with weight 0 answered."""
    able = {_name(seen, place) for place in usable(seen.service)}
    return any(name in _known(seen) and name not in able for name in _answers(seen))


def _answers(seen: Evidence) -> Counter[str]:
    return Counter(exchange.node for exchange in seen.answered)


def _known(seen: Evidence) -> tuple[str, ...]:
    return tuple(server.node for server in seen.service.real_servers)


def _names(seen: Evidence) -> str:
    return ", ".join(_known(seen))


def _name(seen: Evidence, place: Place) -> str:
    """The node at ``place``, or the place itself where the topology has nobody there."""
    for server in seen.service.real_servers:
        if (server.rip, server.port) == place:
            return server.node
    return f"{place[0]}:{place[1]}"


def _counts(by_name: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(by_name.items())) or "nothing"


def _no_table(seen: Evidence) -> Judgement:
    return Judgement(
        Verdict.FAIL,
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
