"""How a scheduler distributes connections, computed from its definition.

The definitions are those of ipvsadm(8) and of net/netfilter/ipvs/ip_vs_*.c in the
kernel. Every function is pure: a service and what the director's table held before go
in, the expected number of connections per real server comes out.

Connections are expected one after the other, each staying open, because that is what
the schedulers that count connections look at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import gcd, lcm

from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import Scheduler, VirtualService
from lvsctl.model.state import ServiceState

Place = tuple[IPAddress, int]
"""A real server as IPVS names it: RIP and port."""

AT_LEAST = 12
"""Requests to send at least: enough to tell the schedulers apart with a few real servers."""
AT_MOST = 2000


@dataclass(slots=True)
class Load:
    """A real server while connections are being handed out.

    ``active`` and ``inactive`` are connections that it holds, ``given`` those of this run,
    ``latest`` the number of the last of them.
    """

    place: Place
    weight: int
    upper: int
    active: int = 0
    inactive: int = 0
    given: int = 0
    latest: int = 0

    @property
    def full(self) -> bool:
        """Whether its upper threshold keeps it from new connections (ipvsadm(8), -x)."""
        return bool(self.upper) and self.active + self.inactive >= self.upper

    @property
    def overhead(self) -> int:
        """ip_vs_dest_conn_overhead: an active connection weighs as much as 256 inactive ones."""
        return (self.active << 8) + self.inactive


@dataclass(frozen=True, slots=True)
class Expected:
    """What the definition predicts of ``total`` connections.

    ``shares`` are per real server. ``exact`` False: the definition leaves it open (which
    one a hash chooses, what chance decides) and ``shares`` is empty; then ``one`` says
    whether all must land on a single real server. ``slack`` is how far from its share a
    real server may be, because the table changes while the run goes on.
    """

    total: int
    says: str
    shares: dict[Place, int] = field(default_factory=dict)
    exact: bool = True
    one: bool = False
    slack: int = 0


def usable(service: VirtualService) -> tuple[Place, ...]:
    """The real servers that may get new connections: those whose weight is not 0."""
    return tuple((s.rip, s.port) for s in service.real_servers if s.weight > 0)


def expected_distribution(
    service: VirtualService, before: ServiceState | None, total: int
) -> Expected:
    """What the scheduler's definition predicts of ``total`` connections from one client."""
    scheduler = service.scheduler
    if service.persistence:
        return Expected(
            total, "persistence: one client stays with one real server", exact=False, one=True
        )
    if scheduler in _HASHING:
        return Expected(
            total, f"{_HASHING[scheduler]}: always the same real server", exact=False, one=True
        )
    if scheduler is Scheduler.TWOS:
        return Expected(total, "the less loaded of two chosen by chance", exact=False)
    choose, says = _CHOOSING[scheduler]
    loads = _loads(service, before)
    for number in range(1, total + 1):
        chosen = choose([load for load in loads if load.weight > 0 and not load.full])
        if chosen is None:  # nobody has room: refused
            break
        chosen.active += 1
        chosen.given += 1
        chosen.latest = number
    shares = {load.place: load.given for load in loads}
    return Expected(total, says, shares, slack=_SLACK.get(scheduler, 0))


def requests_needed(service: VirtualService, before: ServiceState | None) -> int:
    """How many requests show the distribution: whole rounds, so that the start does not matter.

    Not more than the thresholds leave room for.
    """
    weights = [server.weight for server in service.real_servers if server.weight > 0]
    if not weights:
        return 1
    round_ = len(weights)
    if service.scheduler is Scheduler.WRR:
        round_ = sum(weights) // reduce(gcd, weights)
    count = min(-(-AT_LEAST // round_) * round_, max(AT_MOST, round_))
    room = _room(_loads(service, before))
    return count if room is None else max(1, min(count, room))


def _room(loads: Sequence[Load]) -> int | None:
    """How many connections the thresholds admit; None: as many as one likes."""
    open_to_all = [load for load in loads if load.weight > 0]
    if any(not load.upper for load in open_to_all):
        return None
    return sum(max(0, load.upper - load.active - load.inactive) for load in open_to_all)


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
                active=now.active if now is not None else 0,
                inactive=now.inactive if now is not None else 0,
            )
        )
    return loads


Choose = Callable[[list[Load]], Load | None]


def _in_turn(loads: list[Load]) -> Load | None:
    """rr: the next one. Over whole rounds it does not matter who is first."""
    return min(loads, key=lambda load: load.given, default=None)


def _in_weighted_turn(loads: list[Load]) -> Load | None:
    """wrr: in each round as many connections as the weight says."""
    if not loads:
        return None
    common = lcm(*(load.weight for load in loads))
    return min(loads, key=lambda load: (load.given + 1) * (common // load.weight))


def _least_connections(loads: list[Load]) -> Load | None:
    return min(loads, key=lambda load: load.overhead, default=None)


def _weighted_least_connections(loads: list[Load]) -> Load | None:
    return _least_ratio(loads, lambda load: load.overhead)


def _shortest_expected_delay(loads: list[Load]) -> Load | None:
    return _least_ratio(loads, lambda load: load.active + 1)


def _never_queue(loads: list[Load]) -> Load | None:
    idle = next((load for load in loads if load.active == 0), None)
    return idle or _shortest_expected_delay(loads)


def _highest_weight(loads: list[Load]) -> Load | None:
    return max(loads, key=lambda load: load.weight, default=None)


def _highest_weight_with_room(loads: list[Load]) -> Load | None:
    return _highest_weight([load for load in loads if load.active <= load.weight])


def _by_locality(loads: list[Load]) -> Load | None:
    """lblc, lblcr, for one destination: stay with a real server until it is overloaded.

    Overloaded: more connections than its weight, while another has less than half of its
    own weight. Then it is the one with the fewest by weight.
    """
    staying = max(loads, key=lambda load: load.latest, default=None)
    if (
        staying is not None
        and staying.given
        and not (staying.active > staying.weight and any(o.active * 2 < o.weight for o in loads))
    ):
        return staying
    return _weighted_least_connections(loads)


def _least_ratio(loads: list[Load], cost: Callable[[Load], int]) -> Load | None:
    """The first of those with the least cost by weight, compared without division."""
    least: Load | None = None
    for load in loads:
        if least is None or cost(least) * load.weight > cost(load) * least.weight:
            least = load
    return least


_CHOOSING: dict[Scheduler, tuple[Choose, str]] = {
    Scheduler.RR: (_in_turn, "each in turn"),
    Scheduler.WRR: (_in_weighted_turn, "each in turn, as often as its weight"),
    Scheduler.LC: (_least_connections, "the one with the fewest connections"),
    Scheduler.WLC: (_weighted_least_connections, "the one with the fewest connections by weight"),
    Scheduler.SED: (_shortest_expected_delay, "the one with the shortest expected delay"),
    Scheduler.NQ: (_never_queue, "an idle one, else the shortest expected delay"),
    Scheduler.FO: (_highest_weight, "the one with the highest weight"),
    Scheduler.OVF: (_highest_weight_with_room, "the highest weight that is not overloaded"),
    Scheduler.LBLC: (_by_locality, "the same for one destination until it is overloaded"),
    Scheduler.LBLCR: (_by_locality, "the same for one destination until it is overloaded"),
}

_HASHING = {
    Scheduler.SH: "hash of the client's address",
    Scheduler.DH: "hash of the VIP",
    Scheduler.MH: "Maglev hash of the client's address",
}

_SLACK = dict.fromkeys((Scheduler.LC, Scheduler.WLC, Scheduler.LBLC, Scheduler.LBLCR), 1)
# They look at connections that others opened before, and those expire while we ask.
