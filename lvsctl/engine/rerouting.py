"""Let routers send flows to another director than before, for a moment (``ha: ecmp``).

What a router takes for one flow decides to which of several next hops it goes. With another
setting, many of the flows go to another one, as they do where a next hop is added or lost; and
back again afterwards. Other flows through the router are sent otherwise as well meanwhile.

By addresses alone all flows of a client go to one director. So flows that begin before that come
to this director from others; and those that begin meanwhile come to the others from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from lvsctl.kernel import netns, sysctl
from lvsctl.model.evidence import Rerouted
from lvsctl.model.lab import Lab, Node
from lvsctl.model.service import Protocol, VirtualService
from lvsctl.plan.planner import HASH_POLICY
from lvsctl.plan.routing import multipath_routes
from lvsctl.traffic import again

FLOWS = 24
"""Flows for each director: of two, half of the flows are sent to the other one, half of these
from each. If one of them lacks a real server of three, or has it with three times the weight, a
quarter and more of these reach another real server: that none of 24 does is a chance of one in a
thousand."""

_BY_ADDRESS, _BY_PORT = "0", "1"


def reroute(
    lab: Lab, asked: Sequence[tuple[VirtualService, Node, int | None]], timeout: float
) -> tuple[tuple[Rerouted, ...], ...]:
    """Ask services over connections that routers send to several directors, one after the other.

    ``asked`` are services with the client that asks, and how many connections their real servers
    take (None: as many as one likes). Returns the connections of each. Raises LabError if a part
    of the lab is missing.
    """
    with ExitStack() as held:

        def begin() -> list[again.Flows]:
            """Open half of the connections of each service."""
            return [
                held.enter_context(
                    again.opened(
                        lab.netns(client.name),
                        service.endpoint,
                        _count(lab, service, room) // 2,
                        timeout,
                    )
                )
                for service, client, room in asked
            ]

        def ask(several: Iterable[again.Flows]) -> None:
            for one in several:
                one.ask()

        first = begin()
        ask(first)
        with _hashed_otherwise(lab):
            second = begin()
            ask((*second, *first))
        ask((*second, *first))
        return tuple(
            tuple(Rerouted(found) for one in both for found in one.exchanges if found)
            for both in zip(first, second, strict=True)
        )


def _count(lab: Lab, service: VirtualService, room: int | None) -> int:
    # SCTP's multihoming and SIP's calls are flows of another kind.
    if service.endpoint.protocol not in (Protocol.TCP, Protocol.UDP) or service.keeps_calls:
        return 0
    count = FLOWS * len(lab.directors)
    return count if room is None else min(count, room)


@contextmanager
def _hashed_otherwise(lab: Lab) -> Iterator[None]:
    """Change what routers take for one flow inside the ``with`` block, then put it back."""
    before: dict[tuple[str, str], str] = {}
    for node in lab.nodes:
        for version in dict.fromkeys(one.via.version for one in multipath_routes(lab, node)):
            key = HASH_POLICY.format(version)
            name = lab.netns(node.name)
            value = netns.run_inside(name, partial(sysctl.read, key))
            if value is not None:
                before[name, key] = value
    try:
        for (name, key), value in before.items():
            _set(name, key, _BY_ADDRESS if value != _BY_ADDRESS else _BY_PORT)
        yield
    finally:
        for (name, key), value in before.items():
            _set(name, key, value)


def _set(name: str, key: str, value: str) -> None:
    def write() -> None:
        sysctl.write(key, value)
        # A client that is beside the directors keeps the route of a connection otherwise.
        sysctl.write("net.ipv4.route.flush", "1")
        sysctl.write("net.ipv6.route.flush", "1", optional=True)

    netns.run_inside(name, write)
