"""What several directors promise that handle requests at the same time (``ha: ecmp``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import inf
from typing import NamedTuple

from lvsctl.claims.base import CheckResult, ClaimTable, inconclusive, join_names, passed_if
from lvsctl.claims.hashing import changed_entries
from lvsctl.claims.schedulers import Place
from lvsctl.claims.trace import Conversation, Trace
from lvsctl.model.addresses import Endpoint, IPAddress
from lvsctl.model.evidence import Exchange, Rerouted
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.service import ForwardingMethod, Scheduler, tunnel_text
from lvsctl.model.state import ServiceState

CLAIMS = ClaimTable()

ENOUGH = 16
"""Flows of which, of two directors, one gets none by chance only once in 30,000 times."""


class Leg(NamedTuple):
    """One request of a flow: the directors that received packets of it, and the real servers that
    they sent them to."""

    exchange: Exchange
    directors: tuple[str, ...]
    real_servers: tuple[str, ...]
    frames: tuple[Frame, ...]


def _of_several(trace: Trace) -> bool:
    return trace.evidence.lab.ecmp


def _ports_are_hashed(trace: Trace) -> bool:
    """Whether the client's flows are spread: not if it has the IPv6 route over several next hops.

    The kernel chooses one of these for a connection before the connection has a port
    (net/ipv6/tcp_ipv6.c, tcp_v6_connect).
    """
    vip = trace.run.endpoint.vip
    network = trace.evidence.lab.network_of(vip)
    beside = (
        network is not None and network.name in trace.evidence.lab.node(trace.run.client).networks
    )
    return _of_several(trace) and not (vip.version == 6 and beside)


def flows_by_director(trace: Trace) -> dict[IPAddress, dict[str, int]]:
    """Count the flows that each director received first, by the client's address.

    Not those for which routers were made to hash otherwise.
    """
    rerouted = {one.local for one in trace.run.rerouted}
    counts: dict[IPAddress, dict[str, int]] = {}
    for conversation in trace.everything:
        if conversation.client in rerouted:
            continue
        own = counts.setdefault(conversation.client.address, dict.fromkeys(trace.directors, 0))
        for frame in conversation.requests:
            if frame.tap.node in own and frame.direction is Direction.IN:
                own[frame.tap.node] += 1
                break
    return counts


@CLAIMS.add(
    "ecmp.every-director",
    "routers spread flows over all directors: each of them receives some",
    broken_by=("next-hop-missing", "hashed-by-address", "director-down"),
    applies=_ports_are_hashed,
)
def every_director(trace: Trace) -> CheckResult:
    """Count the flows of each client that arrive at each director."""
    expected = f"flows of each client at {join_names(trace.directors)}"
    counts = flows_by_director(trace)
    wrong = {
        client: own
        for client, own in counts.items()
        if not all(own.values()) and sum(own.values()) >= ENOUGH
    }
    observed = "; ".join(
        f"of {client}: {', '.join(f'{name} {count}' for name, count in own.items())}"
        for client, own in (wrong or counts).items()
    )
    if not wrong and not any(all(own.values()) for own in counts.values()):
        return inconclusive(expected, f"{observed or 'no flow'}: too few to tell")
    return passed_if(not wrong, expected, observed)


@CLAIMS.add(
    "ecmp.tables-agree",
    "every director has the same virtual service: scheduler, flags, persistence, and the same real "
    "servers in the same order",
    broken_by=("real-servers-reordered", "service-missing", "real-server-removed"),
    applies=_of_several,
    needs_requests=False,
    needs_frames=False,
)
def tables_agree(trace: Trace) -> CheckResult:
    """Compare the directors' IPVS tables with that of the first one."""
    service = trace.run.service
    first, *others = trace.directors
    expected = f"{service.match} of {join_names(others)} as that of {first}"
    tables = {}
    for name in trace.directors:
        state = trace.evidence.states.get(name)
        if state is None or not state.whole:
            return inconclusive(expected, f"{name} was not looked at")
        tables[name] = next((one for one in state.services if one.match == service.match), None)
    wrong = [
        f"{name} {difference}"
        for name in others
        for difference in _differences(trace, tables[first], tables[name], first)
    ]
    return passed_if(not wrong, expected, "; ".join(wrong) or "the same")


def _differences(
    trace: Trace, right: ServiceState | None, other: ServiceState | None, first: str
) -> Iterator[str]:
    """Say how a director's service differs from that of the ``first`` one."""
    if right is None or other is None:
        if right is not other:
            yield f"has it, {first} has not" if other is not None else "has no such service"
        return
    for name, has, wanted in (
        ("scheduler", other.scheduler, right.scheduler),
        ("flags", ", ".join(other.flags), ", ".join(right.flags)),
        ("persistence", other.persistence, right.persistence),
    ):
        if has != wanted:
            yield f"has {name} {has or 'none'}, {first} {wanted or 'none'}"
    yield from _differing_servers(trace, right, other, first)


def _differing_servers(
    trace: Trace, right: ServiceState, other: ServiceState, first: str
) -> Iterator[str]:
    nodes = {(one.rip, one.port): one.node for one in trace.real_servers}

    def named(place: Place) -> str:
        return nodes.get(place) or str(Endpoint(*place))

    mine, theirs = _entries(other), _entries(right)
    for place in dict.fromkeys((*theirs, *mine)):
        if place not in mine:
            yield f"lacks {named(place)}"
        elif place not in theirs:
            yield f"has {named(place)}, {first} has not"
        elif mine[place] != theirs[place]:
            yield f"has {named(place)} {mine[place]}, {first} {theirs[place]}"
    if mine == theirs and list(mine) != list(theirs) and right.scheduler in _BY_ORDER:
        order = " ".join(map(named, mine))
        yield f"has them in the order {order}{_effect(right, other)}"


_BY_ORDER = frozenset({"sh", "dh", "mh"})
"""Schedulers whose choice depends on the order in which real servers were added."""


def _entries(table: ServiceState) -> dict[Place, str]:
    """The settings of real servers, in the order in which they were added."""
    return {
        (one.rip, one.port): f"by {one.forward}"
        + (f" ({tunnel_text(one.encapsulation, one.tunnel_port, one.tunnel_flags)})")
        * (one.forward == ForwardingMethod.TUN)
        + f" with weight {one.weight}"
        + f" and at most {one.upper} connections" * bool(one.upper)
        for one in table.real_servers
    }


def _effect(right: ServiceState, other: ServiceState) -> str:
    """Say how many entries of the Maglev table the order changes."""
    if right.scheduler != Scheduler.MH:
        return ""
    first, second = (
        [((one.rip, one.port), one.weight) for one in table.real_servers]
        for table in (right, other)
    )
    changed, total = changed_entries(first, second)
    return f": mh gives {changed} of {total} hashes to another real server"


def legs(trace: Trace, rerouted: Rerouted, conversation: Conversation) -> Iterator[Leg]:
    """Yield each request of a flow with the way that its packets took."""
    nodes = {server.rip: server.node for server in trace.real_servers}
    ends = [*(one.sent_at * 1e9 for one in rerouted.exchanges), inf]
    for exchange, (since, until) in zip(rerouted.exchanges, pairwise(ends), strict=True):
        at_directors = [
            frame
            for frame in conversation.requests
            if frame.tap.node in trace.directors and since <= frame.time < until
        ]
        came = [frame for frame in at_directors if frame.direction is Direction.IN]
        went = [frame for frame in at_directors if frame.direction is Direction.OUT]
        servers = (nodes.get(frame.outer.dst, "") for frame in went if frame.outer is not None)
        yield Leg(
            exchange,
            tuple(dict.fromkeys(frame.tap.node for frame in came)),
            tuple(dict.fromkeys(filter(None, servers))),
            (*came[:1], *went[:1]),
        )


def moved(trace: Trace) -> Iterator[tuple[Leg, ...]]:
    """Yield the requests of each flow that was answered at first and came to another director."""
    conversations = {one.client: one for one in trace.further}
    for rerouted in trace.run.rerouted:
        conversation = conversations.get(rerouted.local) if rerouted.local else None
        if conversation is None or not rerouted.exchanges[0].answered:
            continue
        found = tuple(legs(trace, rerouted, conversation))
        if len({name for leg in found for name in leg.directors}) > 1:
            yield found


def _is_rerouted(trace: Trace) -> bool:
    return _of_several(trace) and bool(trace.run.rerouted)


@CLAIMS.add(
    "ecmp.same-real-server",
    "a flow that routers send to another director goes on, at the same real server",
    broken_by=("sloppy-off",),
    applies=_is_rerouted,
)
def same_real_server(trace: Trace) -> CheckResult:
    """Follow flows while routers send them to one director and then to another."""
    expected = "the same real server by each director, and every request answered"
    found = list(moved(trace))
    if not found:
        return inconclusive(expected, "no flow that was answered came to another director")
    elsewhere = [one for one in found if len(_servers(one)) > 1]
    ended = [one for one in found if one not in elsewhere and not one[-1].exchange.answered]
    total = len(found)
    observed = f"{total} flows came to another director, and went on at the same real server"
    if elsewhere or ended:
        parts = [f"of {total} flows that came to another director"]
        if elsewhere:
            parts.append(f"{len(elsewhere)} were sent to another real server, {_way(elsewhere[0])}")
        if ended:
            last = ended[0][-1]
            by = last.directors[-1] if last.directors else "a director"
            how = "" if last.real_servers else f": {by} sent it to none"
            parts.append(f"{len(ended)} did not go on ({last.exchange.error}{how})")
        observed = f"{parts[0]} {' and '.join(parts[1:])}"
    shown = next(iter(elsewhere or ended or found))
    frames = [frame for leg in shown[:2] for frame in leg.frames]
    return passed_if(not elsewhere and not ended, expected, observed, frames)


def _servers(found: Iterable[Leg]) -> set[str]:
    return {name for leg in found for name in leg.real_servers}


def _way(found: Iterable[Leg]) -> str:
    """Describe which director sent a flow where, for the first one."""
    said = dict.fromkeys(
        f"{' and '.join(leg.real_servers)} by {' and '.join(leg.directors)}"
        for leg in found
        if leg.real_servers and leg.directors
    )
    return "such as " + " and ".join(said)
