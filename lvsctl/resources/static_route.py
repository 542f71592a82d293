"""A static route."""

from __future__ import annotations

import errno
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar, NamedTuple, Self

from lvsctl.model.addresses import IPAddress, IPNetwork
from lvsctl.model.lab import Lab
from lvsctl.model.state import MAIN_TABLE, NodeState, RouteState
from lvsctl.resources.base import (
    Command,
    Deviation,
    Part,
    Resource,
    States,
    link_part,
    nexthop_part,
)

_GATEWAY = "{self.via} must be on a network of the node, and no address of its own"
_METRICS = ("mtu", "advmss")
_IPV6_METRIC = 1024
"""The metric of an IPv6 route that was given none (IP6_RT_PRIO_USER)."""


class RouteHop(NamedTuple):
    """One of several next hops of a route: a gateway, or a link; ``weight`` is its share."""

    via: IPAddress | None
    device: str = ""
    weight: int = 1

    @property
    def words(self) -> tuple[str, ...]:
        """The next hop as ip-route(8) takes it."""
        where = ("via", str(self.via)) if self.via is not None else ("dev", self.device)
        return ("nexthop", *where, *(("weight", str(self.weight)) if self.weight != 1 else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticRoute(Resource):
    """A route; ``to`` None is the default route of the IP ``version``.

    ``via`` None: on the link ``device``, or, of another ``type`` than unicast, nowhere.
    ``next_hops`` are several, over which flows are spread: then it has no ``via`` of its own.
    ``metric`` 0 is the usual one. ``details`` are what else it has, in ip-route(8)'s words, as
    ``mtu 1400``; planned are those two of ``limits``.
    """

    HINTS: ClassVar[dict[int, str]] = {
        errno.EHOSTUNREACH: _GATEWAY,
        errno.EINVAL: _GATEWAY,
        errno.ENETUNREACH: _GATEWAY,
    }

    to: IPNetwork | None
    via: IPAddress | None
    table: int = MAIN_TABLE
    type: str = "unicast"
    metric: int = 0
    device: str = ""
    version: int = 0
    details: tuple[str, ...] = field(default=(), compare=False)
    next_hops: tuple[RouteHop, ...] = ()

    @staticmethod
    def limits(mtu: int, mss: int) -> tuple[str, ...]:
        """Return the details of a route that limits packets or TCP segments (0: does not)."""
        return (*([f"mtu {mtu}"] if mtu else []), *([f"advmss {mss}"] if mss else []))

    @property
    def metrics(self) -> tuple[tuple[str, int], ...]:
        """Names and values of the planned ``details``."""
        words = (one.partition(" ") for one in self.details)
        return tuple((name, int(value)) for name, _, value in words if name in _METRICS)

    @property
    def ip_version(self) -> int:
        """The IP version: that of its addresses, else ``version``."""
        known = self.via or self.to or (self.next_hops[0].via if self.next_hops else None)
        return known.version if known is not None else self.version or 4

    @property
    def key(self) -> Hashable:
        return StaticRoute, self.netns, self.to, self.ip_version, self.table, self.metric

    def _route(self, verb: str) -> tuple[Command, ...]:
        words: list[object] = ["ip"]
        if self.ip_version == 6 and self.via is None and self.to is None:
            words.append("-6")
        words += ["route", verb]
        words += [] if self.type == "unicast" else [self.type]
        words.append(self.to or "default")
        words += ["via", self.via] if self.via is not None else []
        words += ["dev", self.device] if self.device and self.via is None else []
        words += ["table", self.table] if self.table != MAIN_TABLE else []
        words += ["metric", self.metric] if self.metric else []
        if verb != "del":
            words += [word for metric in self.metrics for word in metric]
            words += [word for hop in self.next_hops for word in hop.words]
        return (self.command(*words),)

    def commands(self) -> tuple[Command, ...]:
        return self._route("add")

    def edit_commands(self) -> tuple[Command, ...]:
        return self._route("replace")

    def undo_commands(self) -> tuple[Command, ...]:
        return self._route("del")

    def rests_on(self) -> frozenset[Part]:
        own = Resource.rests_on(self)
        objects = (one for one in self.details if one.startswith("nhid "))
        own |= {nexthop_part(self.netns, int(one.split()[1])) for one in objects}
        return own | {link_part(self.netns, self.device)} if self.device else own

    def _present(self, state: NodeState) -> tuple[StaticRoute, ...]:
        """Return what the state has with the key of this one."""
        return tuple(one for one in StaticRoute.from_state(state) if one.key == self.key)

    def _is(self, other: StaticRoute) -> bool:
        same = other.details == self.details and set(other.next_hops) == set(self.next_hops)
        return same and (other.via, other.type) == (self.via, self.type)

    def holds(self, state: NodeState) -> bool:
        found = self._present(state)
        return len(found) == 1 and self._is(found[0])

    def in_the_way(self, states: States) -> tuple[Resource, ...]:
        state = states.get(self.netns)
        found = () if state is None else self._present(state)
        wrong = tuple(one for one in found if not self._is(one))
        return wrong if wrong != found or any(one.type != "unicast" for one in wrong) else ()

    @classmethod
    def from_state(cls, state: NodeState) -> Iterator[Self]:
        made = (one for one in (*state.routes, *state.other_routes) if not one.kernel)
        for _, several in groupby(made, key=_whole):
            first, *others = several
            if first.hops == 1:
                for one in (first, *others):
                    yield cls._found(state.netns, one)
                continue
            every = (first, *others)
            for at in range(0, len(every), first.hops):  # one entry for each hop
                yield cls._found(state.netns, first, every[at : at + first.hops])

    @classmethod
    def _found(cls, netns: str, one: RouteState, every: tuple[RouteState, ...] = ()) -> Self:
        """Return a route of a state; ``every`` are the entries of one over several next hops."""
        return cls(
            netns=netns,
            to=one.to,
            via=None if every else one.via,
            table=one.table,
            type=one.type,
            metric=0 if one.version == 6 and one.metric == _IPV6_METRIC else one.metric,
            device=one.device if one.via is None and not every else "",
            version=0 if one.to is not None or one.via is not None else one.version,
            details=one.details,
            next_hops=tuple(
                RouteHop(hop.via, "" if hop.via is not None else hop.device, hop.weight)
                for hop in every
            ),
        )

    def deviation(self, state: NodeState, lab: Lab) -> Deviation | None:
        if self.holds(state):
            return None
        found = self._present(state)
        if found:
            others = " and ".join(one.words() for one in found)
            return Deviation(f"{others}, and not {self.words()}", self.why)
        return Deviation(f"no {self.words().partition(' ')[2]}", self.why)

    def surplus(self, lab: Lab) -> Deviation | None:
        return Deviation(f"{self.words()} is there, which the topology does not say")

    def words(self) -> str:
        """Return the route as a phrase."""
        kind = "route" if self.type == "unicast" else f"{self.type} route"
        article = "an" if kind.startswith("un") else "a"
        words = [f"{article} {kind} to {self.to or 'anywhere (default)'}"]
        if self.next_hops:
            words.append(f"over {len(self.next_hops)} next hops, {_listed(self.next_hops)}")
        elif self.via is not None:
            words.append(f"via {self.via}")
        elif self.device:
            words.append(f"on {self.device}")
        words += self.details
        words += [f"metric {self.metric}"] if self.metric else []
        words += [f"in table {self.table}"] if self.table != MAIN_TABLE else []
        return " ".join(words)


def _whole(one: RouteState) -> tuple[Hashable, ...]:
    """What the entries of one route over several next hops have in common."""
    return one.to, one.version, one.table, one.type, one.metric, one.details, one.hops


def _listed(hops: tuple[RouteHop, ...]) -> str:
    shares = (f" (weight {one.weight})" if one.weight != 1 else "" for one in hops)
    return " and ".join(
        f"{one.via or one.device}{share}" for one, share in zip(hops, shares, strict=True)
    )
