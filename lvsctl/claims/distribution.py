"""How a scheduler distributes connections, computed from its definition.

Every function is pure: a service and what the director's table held before go in, the
expected number of connections per real server comes out. The definitions themselves stand
in ``verify.schedulers``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import combinations, islice, product
from math import gcd

from lvsctl.claims.hashing import Hashed, chosen
from lvsctl.claims.schedulers import CHOOSING, Load, Place, handed_out, within_a_round
from lvsctl.model.addresses import Endpoint
from lvsctl.model.service import Scheduler, SchedulerFlag, VirtualService
from lvsctl.model.state import ServiceState


def no_room(service: VirtualService) -> str:
    """Why IPVS refuses every request where ``room_for`` is 0."""
    if not usable(service):
        return "the topology gives every real server weight 0, so IPVS refuses every request"
    return "thresholds let no real server take new connections (earlier ones leave in minutes)"


AT_LEAST = 12
"""Requests to send at least: enough to tell the schedulers apart with a few real servers."""
HASHED_TIMES = 3
"""So many times as many where the client's port is hashed, so that each real server gets one."""
AT_MOST = 2000
COVERING_MOST = 400
"""Requests that are sent at most so that each real server gets one."""

_STARTS = 256
"""States that the director may have been in before the run, looked at."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the definition predicts of ``total`` connections.

    ``shares`` are per real server. ``exact`` False: the definition does not determine them (a
    hash or chance does) and ``shares`` is empty; then ``one`` says whether all connections
    must go to a single real server. ``slack`` is the tolerance per real server, because the
    table changes during the run. ``others`` are alternative shares, depending on earlier
    connections that the director remembers and its table does not show.
    """

    total: int
    text: str
    shares: dict[Place, int] = field(default_factory=dict)
    exact: bool = True
    one: bool = False
    slack: int = 0
    others: tuple[dict[Place, int], ...] = ()
    most: dict[Place, int] = field(default_factory=dict)
    """Where only a part of a round is sent: ``shares`` are the least that a real server gets then,
    and these the most."""

    def fitting(self, seen: Mapping[Place, int]) -> dict[Place, int] | None:
        """The shares that ``seen`` is an example of; None where it contradicts them all."""
        if self.most:
            inside = (self.shares[p] <= seen.get(p, 0) <= most for p, most in self.most.items())
            return dict(seen) if all(inside) else None
        for shares in (self.shares, *self.others):
            if all(
                abs(seen.get(place, 0) - share) <= self.slack and (share or not seen.get(place))
                for place, share in shares.items()
            ):
                return shares
        return None


def usable(service: VirtualService) -> tuple[Place, ...]:
    """The real servers that may get new connections: those whose weight is not 0."""
    return tuple((s.rip, s.port) for s in service.real_servers if s.weight > 0)


def expected_distribution(
    service: VirtualService, before: ServiceState | None, total: int
) -> Expected:
    """What the scheduler's definition predicts of ``total`` connections from one client."""
    scheduler = service.scheduler
    if service.keeps_client:
        return Expected(
            total, "persistence: one client stays with one real server", exact=False, one=True
        )
    if scheduler in _HASHING:
        text = _HASHING[scheduler]
        if SchedulerFlag.PORT in service.flags:
            return Expected(total, f"{text} and port", exact=False)
        return Expected(total, f"{text}: always the same real server", exact=False, one=True)
    if scheduler is Scheduler.TWOS:
        return Expected(total, "the less loaded of two chosen by chance", exact=False)
    _, text = CHOOSING[scheduler]
    if scheduler is Scheduler.WRR and _is_part(service, total):
        return _part_of_a_round(service, total, text)
    starts = _starts(service, before)
    kept, active = not service.one_packet, _activates(service)
    outcomes = [
        handed_out(scheduler, loads, total, kept=kept, active=active)
        for loads in islice(starts, _STARTS)
    ]
    others = tuple(o for n, o in enumerate(outcomes) if n and o not in outcomes[:n])
    return Expected(
        total,
        text + _blindness(service) + _limits(service),
        outcomes[0],
        slack=max(_SLACK.get(scheduler, 0), _broken_rounds(service)),
        others=others,
    )


def _blindness(service: VirtualService) -> str:
    """Why a scheduler that counts connections finds none, in words; empty where it does."""
    if service.one_packet and service.scheduler in _COUNTING:
        return _IDLE
    return _INACTIVE if service.scheduler in _ACTIVE and not _activates(service) else ""


def _activates(service: VirtualService) -> bool:
    return service.endpoint.protocol.has_connections


def _is_part(service: VirtualService, total: int) -> bool:
    """Whether a round of wrr takes more connections than are sent, and ``total`` are no round."""
    round_ = _wrr_round(service) if usable(service) else 1
    return round_ > AT_MOST and total % round_ != 0


def _wrr_round(service: VirtualService) -> int:
    """How many connections a round of wrr takes."""
    weights = [server.weight for server in service.real_servers if server.weight > 0]
    return sum(weights) // reduce(gcd, weights)


def _part_of_a_round(service: VirtualService, total: int, text: str) -> Expected:
    """Where in a round wrr is, the director does not tell."""
    servers = [server for server in service.real_servers if server.weight > 0]
    bounds = within_a_round([server.weight for server in servers], total % _wrr_round(service))
    whole = total // _wrr_round(service)
    unit = reduce(gcd, [server.weight for server in servers])
    least = dict.fromkeys(((s.rip, s.port) for s in service.real_servers), 0)
    most = dict(least)
    for server, (low, high) in zip(servers, bounds, strict=True):
        place, rounds = (server.rip, server.port), whole * server.weight // unit
        least[place], most[place] = rounds + low, rounds + high
    names = ", ".join(f"{s.node} {least[s.rip, s.port]} to {most[s.rip, s.port]}" for s in servers)
    text += f"; of {total} connections in a round of {_wrr_round(service)}: {names}"
    return Expected(total, text + _limits(service), least, most=most)


def hashed_choices(
    service: VirtualService, before: ServiceState | None, clients: Sequence[Endpoint | None]
) -> tuple[Place | None, ...] | None:
    """The real server that each client's connection is given by hash; None in it: refused.

    The order in which the real servers were added decides too: it is read from the table.
    None where that cannot be told: another scheduler or persistence, thresholds, which look at
    the connections of the moment, or, for mh, weight 0, for which the kernel goes by the weight
    that the real server had before.
    """
    servers = service.real_servers
    drained = service.scheduler is Scheduler.MH and any(s.weight == 0 for s in servers)
    limited = any(server.upper for server in servers)
    if service.scheduler not in _HASHING or service.keeps_client or drained or limited:
        return None
    added = [(s.rip, s.port) for s in before.real_servers] if before is not None else []
    order = {place: position for position, place in enumerate(added)}
    table = sorted(
        (Hashed((s.rip, s.port), s.weight) for s in reversed(servers)),
        key=lambda one: -order.get(one.place, 0),
    )
    vip = service.endpoint.vip if service.scheduler is Scheduler.DH else None
    found: list[Place | None] = []
    for client in clients:
        if client is None:
            return None
        one = chosen(service.scheduler, service.flags, table, vip or client.address, client.port)
        found.append(one.place if one is not None else None)
    return tuple(found)


def hashed_distribution(service: VirtualService, choices: Sequence[Place | None]) -> Expected:
    """What ``hashed_choices`` says, as shares."""
    shares = dict.fromkeys(((s.rip, s.port) for s in service.real_servers), 0)
    for place in choices:
        if place is not None:
            shares[place] += 1
    refused = sum(place is None for place in choices)
    text = _HASHING[service.scheduler]
    text += " and port" if SchedulerFlag.PORT in service.flags else ""
    text += ", else another" if SchedulerFlag.FALLBACK in service.flags else ""
    text += f"; {refused} refused: they hash to a real server with weight 0" if refused else ""
    return Expected(len(choices), text + _limits(service), shares)


def _broken_rounds(service: VirtualService) -> int:
    """1 where a real server may become full within a round: who then comes first is not known."""
    return int(any(server.upper for server in service.real_servers))


def _limits(service: VirtualService) -> str:
    """What of the real servers goes before the scheduler, in words."""
    drained = [s.node for s in service.real_servers if not s.weight]
    limited = [f"{s.node} at most {s.upper}" for s in service.real_servers if s.upper]
    words = [*([f"drained: {', '.join(drained)}"] if drained else []), *limited]
    return "".join(f"; {word}" for word in words)


def _starts(service: VirtualService, before: ServiceState | None) -> Iterator[list[Load]]:
    """The states that the director may be in; first the one in which it remembers nothing."""
    loads = _loads(service, before)
    # One that was full forgets it when its thresholds are set again, until it gets the next.
    unsure = [load.place for load in loads if load.between_thresholds or load.at_threshold]
    for known, other in product(_memories(service), _subsets(unsure)):
        yield [
            replace(
                load,
                full=load.at_threshold is not (load.place in other),
                known=load.place in known,
            )
            for load in loads
        ]


def _memories(service: VirtualService) -> Sequence[Sequence[Place]]:
    """What lblc and lblcr may have in their caches, for a day, since earlier connections."""
    places = usable(service)
    match service.scheduler:
        case Scheduler.LBLC:
            return [(), *((place,) for place in places)]
        case Scheduler.LBLCR:
            return _subsets(places)
    return [()]


def _subsets(places: Sequence[Place]) -> Sequence[Sequence[Place]]:
    """The empty one first. Of more than four places only the small ones and the whole."""
    sizes = range(len(places) + 1) if len(places) <= 4 else (0, 1, len(places))
    return [subset for size in sizes for subset in combinations(places, size)]


def requests_needed(service: VirtualService, before: ServiceState | None) -> int:
    """How many requests show the distribution: whole rounds, so that the start does not matter.

    Not more than the thresholds (ovf: the weights) leave room for; one where there is none. Of a
    round of wrr that takes more than AT_MOST (weights such as 4 and 65535) only a part.
    """
    weights = [server.weight for server in service.real_servers if server.weight > 0]
    if not weights:
        return 1
    round_ = len(weights)
    if SchedulerFlag.PORT in service.flags and not service.keeps_client:
        return AT_LEAST * HASHED_TIMES
    if service.scheduler is Scheduler.WRR:
        round_ = _wrr_round(service)
    most = AT_MOST if service.scheduler is Scheduler.WRR else max(AT_MOST, round_)
    count = min(-(-AT_LEAST // round_) * round_, most)
    counts = service.scheduler in _COUNTING and not _blindness(service)
    if counts and not service.keeps_client:
        while count < COVERING_MOST and not _covers(service, before, count):
            count += round_
    room = room_for(service, before)
    return count if room is None else max(1, min(count, room))


def _covers(service: VirtualService, before: ServiceState | None, count: int) -> bool:
    """Whether each usable real server certainly gets one of ``count`` connections.

    One that does not answer keeps earlier connections, half open, for a minute, and until the
    others have as many it is not chosen.
    """
    least = 1 + _SLACK.get(service.scheduler, 0)
    return all(
        min((shares[place] for place in usable(service)), default=least) >= least
        for shares in (
            handed_out(service.scheduler, loads, count, active=_activates(service))
            for loads in islice(_starts(service, before), _STARTS)
        )
    )


def requests_for_each(service: VirtualService) -> int:
    """How many requests at once reach each real server that the scheduler chooses."""
    weights = [server.weight for server in service.real_servers if server.weight > 0]
    if len(weights) < 2 or service.keeps_client or _one_for_all(service):
        return 1
    if SchedulerFlag.PORT in service.flags:
        return AT_LEAST
    if service.scheduler is Scheduler.WRR:
        return min(sum(weights) // reduce(gcd, weights), max(AT_LEAST, len(weights)))
    return len(weights)


def _one_for_all(service: VirtualService) -> bool:
    return service.scheduler in _ONE_FOR_ALL and SchedulerFlag.PORT not in service.flags


def room_for(service: VirtualService, before: ServiceState | None) -> int | None:
    """How many new connections the real servers certainly take; None: as many as one likes."""
    if service.one_packet:  # no connection stays
        return None
    ovf = service.scheduler is Scheduler.OVF and not service.keeps_client and _activates(service)
    rooms = [_room(load, ovf=ovf) for load in _loads(service, before) if load.weight > 0]
    return None if None in rooms else sum(room or 0 for room in rooms)


def _room(load: Load, *, ovf: bool) -> int | None:
    """The same of one real server. ovf looks at active connections: one more than the weight."""
    rooms = []
    if load.upper:
        held = load.active + load.inactive
        rooms.append(0 if load.between_thresholds else load.upper - held)
    if ovf:
        rooms.append(load.weight + 1 - load.active)
    return max(0, min(rooms)) if rooms else None


def _loads(service: VirtualService, before: ServiceState | None) -> list[Load]:
    """The real servers in the order in which the kernel looks at them: the latest added first."""
    held = {(s.rip, s.port): s for s in before.real_servers} if before is not None else {}
    loads = []
    for server in reversed(service.real_servers):
        place = (server.rip, server.port)
        now = held.get(place)
        loads.append(
            Load(
                place,
                server.weight,
                server.upper,
                server.lower,
                active=now.active if now is not None else 0,
                inactive=now.inactive if now is not None else 0,
            )
        )
    return loads


_HASHING = {
    Scheduler.SH: "hash of the client's address",
    Scheduler.DH: "hash of the VIP",
    Scheduler.MH: "Maglev hash of the client's address",
}

_SLACK = dict.fromkeys((Scheduler.LC, Scheduler.WLC, Scheduler.LBLC, Scheduler.LBLCR), 1)
# They look at connections that others opened before, and those expire while we ask.

_COUNTING = frozenset({Scheduler.LC, Scheduler.WLC, Scheduler.SED, Scheduler.NQ})
"""Schedulers that choose by the connections that a real server has, of all real servers."""

_IDLE = "; one-packet scheduling keeps none, so always the same"
"""What is added about them."""

_ACTIVE = frozenset({Scheduler.SED, Scheduler.NQ})
"""Those that look at active connections only."""

_INACTIVE = "; connections over UDP are never active, so always the same"
"""What is added about them."""

_ONE_FOR_ALL = frozenset({*_HASHING, Scheduler.FO, Scheduler.OVF, Scheduler.LBLC, Scheduler.LBLCR})
"""Schedulers that send the next connections of a client to the same real server."""
