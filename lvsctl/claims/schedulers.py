"""How each scheduler chooses, from its definition: ipvsadm(8), net/netfilter/ipvs/ip_vs_*.c.

Connections come one after the other, each staying open, because that is what the
schedulers that count connections look at. Who is looked at first comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, gcd, lcm

from lvsctl.model.addresses import IPAddress
from lvsctl.model.service import Scheduler

Place = tuple[IPAddress, int]
"""A real server as IPVS names it: RIP and port."""


@dataclass(slots=True)
class Load:
    """A real server while connections are being handed out.

    ``active`` and ``inactive`` are connections that it holds, ``given`` those of this run.
    ``full``: its upper threshold keeps it from new connections (ipvsadm(8), -x), until it
    has fewer than its lower one. ``known``: lblc and lblcr remember it for this destination,
    since the connection of the number ``since``.
    """

    place: Place
    weight: int
    upper: int
    lower: int = 0
    active: int = 0
    inactive: int = 0
    given: int = 0
    full: bool = False
    known: bool = False
    since: int = 0

    @property
    def at_threshold(self) -> bool:
        """Whether it has as many connections as its upper threshold allows."""
        return bool(self.upper) and self.active + self.inactive >= self.upper

    @property
    def between_thresholds(self) -> bool:
        """Whether it depends on the past, which the table does not tell, if it is full.

        Full until below the lower threshold, or three quarters of the upper one where there
        is none (ip_vs_conn.c, ip_vs_unbind_dest).
        """
        held = self.active + self.inactive
        few = held < self.lower if self.lower else held * 4 < self.upper * 3
        return bool(self.upper) and not self.at_threshold and not few

    @property
    def overhead(self) -> int:
        """ip_vs_dest_conn_overhead: an active connection weighs as much as 256 inactive ones."""
        return (self.active << 8) + self.inactive


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
    """lblc, lblcr, for one destination: stay with what is known until it is overloaded.

    lblc knows one real server, lblcr several, of which it takes the one with the fewest
    connections by weight. Overloaded: more connections than its weight, while another has
    less than half of its own. Then it is the one with the fewest by weight of all, which is
    known from then on (ip_vs_lblc.c, ip_vs_lblcr.c).
    """
    known = sorted((load for load in loads if load.known), key=lambda load: -load.since)
    staying = _weighted_least_connections(known)
    if staying is not None and not (
        staying.active > staying.weight and any(o.active * 2 < o.weight for o in loads)
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


CHOOSING: dict[Scheduler, tuple[Choose, str]] = {
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


def within_a_round(weights: Sequence[int], count: int) -> list[tuple[int, int]]:
    """The least and the most that each real server gets of ``count`` connections by wrr.

    Of fewer than a round takes, whatever came before. A round goes from the greatest weight down
    by the greatest common divisor, and at each step takes those whose weight is not less
    (ip_vs_wrr.c): first the heaviest ones alone, at its end all. One more or less may be at
    either end of what is counted.
    """
    unit = gcd(*weights)
    levels = sorted({weight // unit for weight in weights}, reverse=True)
    parts = [  # steps that take the same real servers: how many steps, and how many servers
        (level - below, sum(weight // unit >= level for weight in weights))
        for level, below in zip(levels, [*levels[1:], 0], strict=True)
    ]
    found = []
    for weight in weights:
        first = levels.index(weight // unit)  # before it the real server gets none
        idle = sum(steps * servers for steps, servers in parts[:first])
        most = _taken(parts[first:], count)
        least = _taken(parts[first:][::-1], count - idle)
        found.append((max(0, ceil(least) - 1), min(count, floor(most) + 1, weight // unit)))
    return found


def _taken(parts: Iterable[tuple[int, int]], count: int) -> Fraction:
    """What one of the real servers of all ``parts`` gets of ``count`` connections there."""
    taken = Fraction(0)
    for steps, servers in parts:
        here = min(max(0, count), steps * servers)
        taken += Fraction(here, servers)
        count -= here
    return taken


def handed_out(
    scheduler: Scheduler, loads: list[Load], total: int, *, kept: bool = True, active: bool = True
) -> dict[Place, int]:
    """How many of ``total`` connections each real server is given.

    Not ``kept``: each connection ends with its first packet, before the next one is scheduled
    (one-packet scheduling; __ip_vs_conn_put_notimer in net/netfilter/ipvs/ip_vs_conn.c). Not
    ``active``: they stay inactive, as UDP's do (__ip_vs_update_dest in ip_vs_ctl.c gives new
    connections IP_VS_CONN_F_INACTIVE, which ip_vs_proto_udp.c never takes away).
    """
    choose, _ = CHOOSING[scheduler]
    for number in range(1, total + 1):
        chosen = choose([load for load in loads if load.weight > 0 and not load.full])
        if chosen is None:  # no real server has room: refused
            break
        chosen.given += 1
        if kept:
            chosen.active += active
            chosen.inactive += not active
            chosen.full |= chosen.at_threshold
        if scheduler is Scheduler.LBLC:
            for load in loads:
                load.known = load is chosen
        elif not chosen.known:
            chosen.known, chosen.since = True, number
    return {load.place: load.given for load in loads}
