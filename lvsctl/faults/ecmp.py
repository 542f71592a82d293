"""What goes wrong where several directors handle requests at the same time (``ha: ecmp``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvsctl.faults.base import EVERY_MODE, NO_ANSWER, FaultContext, FaultTable
from lvsctl.faults.change import Change, added, removed
from lvsctl.model.lab import Role
from lvsctl.plan.planner import HASH_POLICY, HASHING, SLOPPY
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.link_up import LinkUp
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.veth_link import VethLink

FAULTS = FaultTable()


@FAULTS.add(
    "sloppy-off",
    "one of several active directors schedules no packets in the middle of a connection",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="the director answers connections that another one has handled so far with a RST",
    breaks=("ecmp.same-real-server",),
)
def sloppy_off(context: FaultContext) -> Iterator[Change]:
    """A director takes a connection that it does not know for one to itself (sloppy_tcp=0).

    Nothing shows it until routers send it a flow that another director has handled: then its TCP
    resets the connection, though its scheduler would have chosen the right real server.

    Changes: net.ipv4.vs.sloppy_tcp, or sloppy_sctp, at one director.
    """
    if context.lab.ecmp:
        names = {SLOPPY.format(one.endpoint.protocol) for one in context.services(EVERY_MODE)}
        for setting in context.planned(Sysctl):
            if setting.name in names:
                yield Change(setting, replace(setting, value="0"))


@FAULTS.add(
    "real-servers-reordered",
    "one of several active directors has the real servers in another order",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="a few flows reach another real server by this director than by the others",
    breaks=("ecmp.tables-agree",),
    may_break=("ecmp.same-real-server", "all.distribution"),
)
def real_servers_reordered(context: FaultContext) -> Iterator[Change]:
    """A real server was deleted and added again on one director: it is the last one now.

    A hash fills its table with the real servers in turn, in their order. The Maglev hash (mh)
    depends little on it, so that few flows are concerned; the source hash (sh) depends on nothing
    else.

    Changes: the first real server of each service that hashes is the last one.
    """
    if not context.lab.ecmp:
        return
    for service in context.planned(IpvsService):
        if service.scheduler not in HASHING:
            continue
        mine = [one for one in context.planned(IpvsRealServer) if one.service == service.service]
        yield from map(removed, mine[:1])
        yield from (added(replace(one, after=())) for one in mine[:1])


@FAULTS.add(
    "director-down",
    "one of several active directors is disconnected, and routers go on sending to it",
    modes=EVERY_MODE,
    at=(Role.DIRECTOR,),
    symptom="the router's ARP requests for one of the next hops stay unanswered",
    breaks=("all.interfaces-up", "ecmp.every-director", NO_ANSWER[0]),
    may_break=("all.real-servers-reached", "all.distribution", "all.large-requests-answered"),
)
def director_down(context: FaultContext) -> Iterator[Change]:
    """A director has lost its link: all flows of one next hop are lost.

    A route has no health check. What takes the next hop away is a routing daemon (BGP with BFD
    between router and director), or an operator.

    Changes: its bridge ports are down.
    """
    if context.lab.ecmp:
        for op in context.plan.resources:
            if isinstance(op, VethLink) and op.node_netns == context.netns:
                yield removed(LinkUp(netns=op.netns, device=op.port))


@FAULTS.add(
    "next-hop-missing",
    "a router's route to the VIP does not lead to one of the active directors",
    modes=EVERY_MODE,
    at=(Role.ROUTER, Role.CLIENT),
    symptom="one director receives no requests",
    breaks=("ecmp.every-director",),
)
def next_hop_missing(context: FaultContext) -> Iterator[Change]:
    """A next hop is missing in the route to the VIP: its director is idle.

    So it is after a director was down, and the route was changed by hand.

    Changes: the last next hop of each route over several.
    """
    for route in context.planned(StaticRoute):
        rest = route.next_hops[:-1]
        if len(rest) == 1:
            yield Change(route, replace(route, via=rest[0].via, next_hops=()))
        elif rest:
            yield Change(route, replace(route, next_hops=rest))


@FAULTS.add(
    "hashed-by-address",
    "a router sends all connections of a client to one director",
    modes=EVERY_MODE,
    at=(Role.ROUTER, Role.CLIENT),
    symptom="all of a client's flows arrive at one director",
    breaks=("ecmp.every-director",),
)
def hashed_by_address(context: FaultContext) -> Iterator[Change]:
    """A router hashes addresses alone, the kernel's default: one client loads one director.

    Behind a large NAT, or with a proxy as the client, a single director carries all.

    Changes: net.ipv4.fib_multipath_hash_policy, or IPv6's.
    """
    names = {HASH_POLICY.format(version) for version in (4, 6)}
    for setting in context.planned(Sysctl):
        if setting.name in names:
            yield Change(setting, replace(setting, value="0"))
