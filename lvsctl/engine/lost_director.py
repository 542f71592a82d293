"""Lose one of several active directors, and measure what clients notice of it (``ha: ecmp``).

Nobody takes over: the others are active already, and no advertisement tells anybody. Routers go on
sending to the lost director's next hop until their route is changed. In production a routing
daemon does that when BFD or BGP's hold timer notices (or a health check withdraws the route); in
the lab it is done after ``NOTICED`` seconds, so that both is seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lvsctl.capture.capture import Capture
from lvsctl.claims import ecmp
from lvsctl.claims.base import join_names
from lvsctl.engine import failover
from lvsctl.engine.failover import AFTER, BEFORE, INTERVAL, LEARNT_SECONDS, Held
from lvsctl.engine.labs import find_node
from lvsctl.engine.up import apply_to_running
from lvsctl.errors import LabError, UsageError
from lvsctl.kernel import registry
from lvsctl.model.claim import Claim, Finding, Verdict
from lvsctl.model.failover import Failover, HeldConnection, Moment, Step
from lvsctl.model.frame import Direction, Frame
from lvsctl.model.lab import Lab, Node
from lvsctl.model.service import VirtualService
from lvsctl.plan import planner
from lvsctl.plan.routing import multipath_routes
from lvsctl.resources.static_route import StaticRoute
from lvsctl.traffic.every import Asked, SteadyClient, is_prompt

NOTICED = 1.5
"""Seconds until the route is changed: about what BFD and BGP's shortest hold times take."""

SETTLED = 10.0
"""Seconds that it may take until every request is answered again, on a slow machine."""


def lose_director(
    lab: Lab,
    *,
    kill: str | None = None,
    cut: str | None = None,
    split: bool = False,
    back: bool = False,
) -> Failover:
    """Kill a director or cut its link, change the routes later; or bring everything back.

    Without any, the first one is killed. Raises UsageError for options that make no sense here.
    """
    service = failover.service_of(lab)
    if split:
        raise UsageError(
            f"the directors of lab {lab.name} are all active: there is nothing to split",
            hint="--kill DIRECTOR, or --cut DIRECTOR:NETWORK",
        )
    if sum(one is not None for one in (kill, cut)) + back > 1:
        raise UsageError("--kill, --cut and --back exclude each other")
    lost, network = lab.directors[0], None
    if cut is not None:
        lost, network = failover.link_of(lab, lost, cut)
    elif kill is not None:
        lost = find_node(lab, kill)
    if lost not in lab.directors:
        names = join_names([one.name for one in lab.directors])
        raise UsageError(f"{lost.name} is no director", hint=f"the directors are {names}")
    with registry.lock(lab.name):
        if back:
            text = f"everything of lab {lab.name} is brought back"
            return _measured(lab, service, None, text, None)
        text = (
            f"the link of {lost.name} to {network} is cut"
            if network
            else f"{lost.name} loses its power"
        )
        return _measured(lab, service, lost, text, network)


def _measured(
    lab: Lab, service: VirtualService, lost: Node | None, text: str, network: str | None
) -> Failover:
    """``lost`` None: bring everything back."""
    nodes: dict[str | Path, str] = {lab.netns(node.name): node.name for node in lab.nodes}
    sender, endpoint = lab.default_client, service.endpoint
    name = lab.netns(sender.name)
    changed = 0.0
    with Capture(nodes, quiet=0.1) as capture, failover.held_connections(name, service) as opened:
        with SteadyClient(name, endpoint.vip, endpoint.port, INTERVAL) as client:
            if not client.wait_for_answers(0.0, BEFORE, SETTLED):
                raise LabError(
                    f"service {service.name} does not answer",
                    hint=f"lvsctl diagnose {lab.name}, or: lvsctl failover {lab.name} --back",
                )
            began = time.time()
            if lost is None:
                failover.revive(lab)
            else:
                _lose(lab, lost, network)
                time.sleep(NOTICED)  # noqa: TID251 (a routing daemon notices it as late)
                changed = time.time()
                _withdraw(lab, lost)
            again = _all_answered(client)
            held = failover.go_on(opened, ())
        asked = sorted(client.asked)
    others = tuple(one.name for one in lab.directors if one != lost)
    story = Story(lab, service, lost.name if lost else "", began, changed, capture.frames)
    connections = tuple(story.connection(one) for one in held)
    failed = [one for one in asked if one.sent >= began and not is_prompt(one)]
    since = failed[0].sent if failed else 0.0
    until = failed[-1].sent if failed else 0.0
    return Failover(
        lab.name,
        service.name,
        text,
        sender.name,
        lost.name if lost else join_names(others),
        join_names(others),
        INTERVAL * 1000,
        2 * INTERVAL * 1000,
        0.0 if again else None,
        len(asked),
        sum(map(is_prompt, asked)),
        tuple(
            sorted(
                (
                    Step(0.0, Moment.ACTION, "", text),
                    *story.steps(sender.name, failed, again=again),
                ),
                key=lambda step: step.at,
            )
        ),
        connections,
        (story.finding(connections, sum(capture.drops.values())),),
        back=lost is None,
        lossy=(until - since) * 1000,
    )


def _lose(lab: Lab, lost: Node, network: str | None) -> None:
    if network is not None:
        failover.cut_links(lab, lost, (network,))
    else:
        failover.kill_director(lab, lost)


def _withdraw(lab: Lab, lost: Node) -> None:
    """Take a director out of the next hops of every route, as a routing daemon does."""
    own = set(lost.addresses)
    apply_to_running(
        lab,
        *(
            without(route, [hop.via for hop in route.next_hops if hop.via in own])
            for route in planner.plan_for(lab).resources
            if isinstance(route, StaticRoute) and any(hop.via in own for hop in route.next_hops)
        ),
    )


def without(route: StaticRoute, lost: Sequence[object]) -> StaticRoute:
    """Return a route over several next hops without some of them."""
    rest = tuple(hop for hop in route.next_hops if hop.via not in lost)
    if len(rest) == 1:
        return replace(route, via=rest[0].via, next_hops=())
    return replace(route, next_hops=rest)


def _all_answered(client: SteadyClient) -> bool:
    """Wait until the client's last requests were all answered at once."""
    deadline = time.monotonic() + SETTLED
    while time.monotonic() < deadline:
        since = time.time()
        client.wait_for_answers(since, AFTER, LEARNT_SECONDS)
        until = since + AFTER * INTERVAL
        client.wait_for_those_before(until, LEARNT_SECONDS)
        latest = [one for one in client.asked if since <= one.sent < until]
        if latest and all(map(is_prompt, latest)):
            return True
    return False


@dataclass(frozen=True, slots=True)
class Story:
    """What frames show. ``began`` and ``changed`` (0: they were not) in seconds since the epoch."""

    lab: Lab
    service: VirtualService
    lost: str
    began: float
    changed: float
    frames: Sequence[Frame]

    def steps(self, client: str, failed: Sequence[Asked], *, again: bool) -> Iterator[Step]:
        """Yield what happened, but for the action itself."""
        routers = {node.name: node for node in self.lab.nodes if multipath_routes(self.lab, node)}
        names, others = join_names(tuple(routers)), self._others
        lossy = bool(failed) and failed[0] != failed[-1]
        if lossy:
            text = f"{client} waits for an answer that does not come at once; others do"
            yield Step((failed[0].sent - self.began) * 1e3, Moment.FIRST_LOST, client, text)
        if self.changed:
            yield Step(
                (self.changed - self.began) * 1e3,
                Moment.ROUTED,
                names,
                f"{names} loses its next hop to {self.lost}: a routing daemon does that",
            )
        moved = self._first_moved()
        if moved is not None:
            text = f"{moved.tap.node} receives a packet of a connection that another one had"
            at = moved.time / 1e6 - self.began * 1e3
            yield Step(at, Moment.MOVED, moved.tap.node, text, moved.number)
        if lossy and again:
            text = f"{client} receives every answer at once from now on, by {others}"
            yield Step((failed[-1].sent - self.began) * 1e3, Moment.ANSWERED, client, text)

    @property
    def _others(self) -> str:
        return join_names([one.name for one in self.lab.directors if one.name != self.lost])

    def _requests(self) -> Iterator[Frame]:
        vip = self.service.endpoint.vip
        directors = {one.name for one in self.lab.directors}
        for frame in self.frames:
            flow = frame.flow
            if (
                flow is None
                or flow.dst.address != vip
                or flow.dst.port != self.service.endpoint.port
            ):
                continue
            if frame.tap.node in directors:
                yield frame

    def _first_moved(self) -> Frame | None:
        """The first packet of a connection at another director than the one that had it."""
        had: dict[object, str] = {}
        for frame in self._requests():
            if frame.direction is not Direction.IN or frame.flow is None:
                continue
            if had.setdefault(frame.flow.src, frame.tap.node) != frame.tap.node:
                return frame
        return None

    def connection(self, one: Held) -> HeldConnection:
        """Return what became of a held connection: who handled it, and where it went."""
        mine = [f for f in self._requests() if f.flow is not None and f.flow.src == one.client]
        came = [f.tap.node for f in mine if f.direction is Direction.IN]
        nodes = {server.rip: server.node for server in self.service.real_servers}
        sent = (
            nodes.get(f.outer.dst, "")
            for f in mine
            if f.direction is Direction.OUT and f.outer is not None
        )
        servers = tuple(dict.fromkeys(filter(None, sent)))
        directors = tuple(dict.fromkeys(came))
        why = ""
        if not one.survived:
            way = f"handled by {join_names(directors)}" if directors else "no director received it"
            why = f"{one.error}: {way}"
        return HeldConnection(
            str(one.client),
            " and ".join(servers),
            len(came),
            len(directors) > 1,
            one.survived and len(servers) < 2,
            why,
        )

    def finding(self, held: Sequence[HeldConnection], dropped: int) -> Finding:
        """Decide whether held connections went on at the same real server."""
        claim = claim_of()
        expected = "every held connection goes on at its real server"
        moved = [one for one in held if one.known]
        ended = [one for one in held if not one.survived]
        observed = (
            f"{len(held) - len(ended)} of {len(held)} went on, {len(moved)} at another director"
        )
        verdict = Verdict.FAIL if ended else Verdict.PASS if moved else Verdict.INCONCLUSIVE
        if ended:
            observed += f"; {ended[0].client}: {ended[0].why or ended[0].real_server}"
        if dropped and verdict is not Verdict.PASS:
            verdict, observed = (
                Verdict.INCONCLUSIVE,
                f"{observed}; the capture lost {dropped} frames",
            )
        return Finding(claim, self.service.name, verdict, expected, observed)


def claim_of() -> Claim:
    """Return the claim about flows that come to another director."""
    return next(row.claim for row in ecmp.CLAIMS if row.check is ecmp.same_real_server)
