"""Why several active directors do not share the flows, or flows do not go on (``ha: ecmp``)."""

from __future__ import annotations

from collections.abc import Iterator

from lvsctl.claims.base import join_names
from lvsctl.claims.hashing import changed_entries
from lvsctl.claims.schedulers import Place
from lvsctl.diagnosis.base import Case, Found, Rule
from lvsctl.diagnosis.ipvs_commands import server_resource, typed
from lvsctl.model.addresses import IPAddress
from lvsctl.model.claim import Cause, Verdict
from lvsctl.model.lab import Node, Route
from lvsctl.model.service import Scheduler
from lvsctl.model.state import RouteState
from lvsctl.plan.planner import HASH_POLICY, HASHING, SLOPPY
from lvsctl.plan.routing import multipath_routes
from lvsctl.resources.static_route import RouteHop, StaticRoute

_GOES_ON = "ecmp.same-real-server"


def several(case: Case) -> bool:
    """Whether several directors handle requests at the same time."""
    return case.lab.ecmp


def next_hops(case: Case) -> Iterator[Found]:
    """Every router beside the directors has a route to the VIP over all of them."""
    for node, route in _routes(case):
        found = [one for one in case.state(node.name).routes if one.to == route.to]
        has = {one.via for one in found}
        missing = [via for via in route.gateways if via not in has]
        if not missing or (has and len(missing) == len(route.gateways)):
            continue  # one that leads to none of them is on the path, and named with that
        names = [_holder(case, via) for via in missing]
        right = StaticRoute(
            netns="",
            to=route.to,
            via=None,
            next_hops=tuple(RouteHop(via) for via in route.gateways),
        )
        yield Cause(
            fault="next-hop-missing",
            node=node.name,
            text=f"its route to the VIP does not lead to {join_names(names)}",
            evidence=(
                f"{node.name}: {_words(route, found)}; no next hop {join_names(_texts(missing))}",
                *_seen(case, "ecmp.every-director"),
            ),
            consequence=f"{join_names(names)} gets no requests of clients behind {node.name}",
            remedy=case.type(node.name, *right.edit_commands()[0].argv),
        )


def _routes(case: Case) -> Iterator[tuple[Node, Route]]:
    """The planned routes to the VIP over several next hops, of nodes that were looked at."""
    for node in case.lab.nodes:
        if node.name not in case.evidence.states:
            continue
        for route in multipath_routes(case.lab, node):
            if route.to is not None and case.vip in route.to:
                yield node, route


def _words(route: Route, found: list[RouteState]) -> str:
    ways = [f"via {one.via}" if one.via else f"dev {one.device}" for one in found]
    return f"{route.to} {', '.join(ways)}" if ways else f"no route to {route.to}"


def _texts(addresses: list[IPAddress]) -> list[str]:
    return list(map(str, addresses))


def _holder(case: Case, address: IPAddress) -> str:
    """The director whose own address it is."""
    return next((one.name for one in case.lab.directors if address in one.addresses), str(address))


def hashing(case: Case) -> Iterator[Found]:
    """Routers hash ports too, so that one client's connections are spread."""
    for node, route in _routes(case):
        key = HASH_POLICY.format(route.via.version)
        value = case.state(node.name).sysctls.get(key, "1")
        if value != "0":
            continue
        yield Cause(
            fault="hashed-by-address",
            node=node.name,
            text="it sends all connections of a client to one director",
            evidence=(
                f"{node.name}: {key}={value}: a flow is known by its addresses alone",
                *_seen(case, "ecmp.every-director"),
            ),
            consequence="a client, or all that are behind one NAT, load a single director",
            remedy=case.sysctl(node.name, key, 1),
        )


def sloppy(case: Case) -> Iterator[Found]:
    """The director schedules packets in the middle of a connection."""
    if not case.endpoint.protocol.has_connections:
        return
    key = SLOPPY.format(case.endpoint.protocol)
    value = case.state(case.director).sysctls.get(key, "1")
    if value != "0":
        return
    yield Cause(
        fault="sloppy-off",
        node=case.director,
        text="it schedules no packets in the middle of a connection",
        evidence=(f"{case.director}: {key}={value}", *_seen(case, _GOES_ON)),
        consequence=(
            "it resets the connections of other directors that routers send to it, whenever a "
            "next hop is added or lost"
        ),
        remedy=case.sysctl(case.director, key, 1),
    )


def orders(case: Case) -> Iterator[Found]:
    """The real servers were added in the topology's order, which a hash depends on."""
    table, service = case.table, case.service
    if table is None or service.scheduler not in HASHING or table.scheduler != service.scheduler:
        return
    wanted: list[Place] = [(one.rip, one.port) for one in service.real_servers]
    has: list[Place] = [(one.rip, one.port) for one in table.real_servers]
    if has == wanted or sorted(has, key=str) != sorted(wanted, key=str):
        return
    nodes = {(one.rip, one.port): one.node for one in service.real_servers}
    found, right = (" ".join(nodes[place] for place in order) for order in (has, wanted))
    # All from the first one on that is out of its place: then the order is right again.
    first = next(at for at, place in enumerate(wanted) if has[at] != place)
    again = [server_resource(case, one) for one in service.real_servers[first:]]
    yield Cause(
        fault="real-servers-reordered",
        node=case.director,
        text="its real servers were added in another order than those of the topology",
        evidence=(
            f"{case.director}: {found}, not {right}",
            *_effect(case, wanted, has),
            *_seen(case, _GOES_ON),
        ),
        consequence="some flows reach another real server by this director than by others",
        remedy=typed(
            case,
            *(command for one in again for command in (one.undo_commands(), one.commands())),
        ),
    )


def _effect(case: Case, wanted: list[Place], has: list[Place]) -> Iterator[str]:
    """How much the order changes: of the Maglev hash a little, of others all."""
    if case.service.scheduler is not Scheduler.MH:
        return
    weights = {(one.rip, one.port): one.weight for one in case.service.real_servers}
    changed, total = changed_entries(
        [(place, weights[place]) for place in wanted], [(place, weights[place]) for place in has]
    )
    yield f"mh gives {changed} of {total} hashes to another real server then"


def _seen(case: Case, claim: str) -> Iterator[str]:
    """What was observed of a claim that does not hold."""
    for finding in case.findings:
        if finding.claim.id == claim and finding.verdict is Verdict.FAIL:
            yield finding.observed


RULES = (
    Rule(
        find=next_hops,
        applies=several,
        rules_out="routers have a next hop for every director",
        latent=True,
        harms_others=True,
    ),
    Rule(
        find=hashing,
        applies=several,
        rules_out="routers hash the ports of flows",
        latent=True,
        harms_others=True,
    ),
    Rule(
        find=sloppy,
        applies=several,
        rules_out="every director schedules packets in the middle of a connection",
        latent=True,
    ),
    Rule(
        find=orders,
        applies=several,
        rules_out="the directors' real servers are in the same order",
        latent=True,
    ),
)
