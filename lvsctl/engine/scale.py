"""Measure throughput over the number of real servers, for each forwarding method.

A lab is built once for a method, with as many real servers as the largest number. Which of them
are in the service is changed from point to point: the others are out of IPVS's table, so they
get no requests and send nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

from lvsctl.claims.scale import is_unsteady, judge
from lvsctl.engine.scale_counts import MeasuredLab, Settings
from lvsctl.engine.up import apply_to_running, temporary_lab
from lvsctl.errors import TopologyError, UsageError
from lvsctl.kernel import undo
from lvsctl.kernel.traffic_counters import Moment, read_moment
from lvsctl.model.lab import Lab
from lvsctl.model.scale import Load, Scale, ScaleCurve, ScalePoint
from lvsctl.model.service import ForwardingMethod, Protocol
from lvsctl.plan import planner
from lvsctl.plan.capacity import reply_path, throughput
from lvsctl.plan.routing import clients_of
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology
from lvsctl.traffic import load

TOPOLOGY = "methods"
"""The shipped topology that makes the point."""

COUNTS = (1, 2, 5, 10, 20, 50, 100)
METHODS = (ForwardingMethod.NAT, ForwardingMethod.TUN, ForwardingMethod.DR)

QUIET = 0.15
"""Seconds without a frame at the clients after which what was under way has arrived."""

_LONGEST_NAME = 24

DRAIN_SECONDS = 20.0
"""How long that may take: a full queue of a slow link."""


def measure(
    topology: Topology,
    counts: Sequence[int] = COUNTS,
    methods: Sequence[ForwardingMethod] = METHODS,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    report: Callable[[str, float], None] = lambda *_: None,
) -> Scale:
    """Measure each of ``methods`` with each of ``counts`` real servers, in labs of their own.

    ``report`` gets what is done now, and which share of all is done. The labs are removed, also
    on an exception. Raises UsageError if the topology cannot have so many real servers or has no
    service over TCP, LabError if a lab of that name is running, and what ``bring_up`` raises.
    """
    counts = tuple(sorted(set(counts)))
    # A mistake in it is none of a forwarding method's rules.
    name = f"scale-{planner.load_lab(topology).name}"[:_LONGEST_NAME]
    curves: list[ScaleCurve] = []
    first: MeasuredLab | None = None
    tool = load.name_of_tool()
    settings = replace(settings, connections=settings.connections or load.connections_needed())
    for number, method in enumerate(methods):
        with ExitStack() as stack:

            def note(text: str, share: float, done: int = number, now: object = method) -> None:
                report(f"{now}: {text}", (done + share) / len(methods))

            note(f"building {counts[-1]} real servers", 0.0)
            try:
                own = Overrides(name=name, servers=counts[-1], forward=method)
                lab = stack.enter_context(temporary_lab(topology, own))
            except TopologyError as error:
                curves.append(ScaleCurve(method, obstacle=error.problems[0].message))
                continue
            measured = _measured(lab, settings)
            if len(measured.entries) < counts[-1] * len(lab.directors):
                raise UsageError(
                    f"the service {measured.service.name} of {topology.source} has "
                    f"{len(measured.entries)} real servers, fewer than {counts[-1]}",
                    hint=f"--servers 1,2,…,{len(measured.entries)}",
                )
            first = first or measured
            points = []
            for position, count in enumerate(counts):
                text = f"{count} real server{'s' if count > 1 else ''}"
                note(text, (position + 0.5) / (len(counts) + 0.5))
                point = _point(measured, count)
                if is_unsteady(point):
                    note(f"{text}, once more", (position + 0.75) / (len(counts) + 0.5))
                    point = replace(_point(measured, count), tries=2)
                points.append(point)
            curves.append(_curve(measured, method, points))
    if first is None:
        raise UsageError(
            f"{topology.source} can have none of these forwarding methods: "
            + "; ".join(f"{curve.method}: {curve.obstacle}" for curve in curves)
        )
    loaded = Load(tool, tuple(node.name for node in first.clients), settings.connections,
                  settings.reply, settings.warm_up, settings.seconds, settings.windows)  # fmt: skip
    least = min((path[0].rate for path in first.paths.values() if path), default=0)
    name_given = topology.argument or topology.source
    return Scale(name_given, first.service.name, counts[-1], least, loaded, tuple(curves))


def _measured(lab: Lab, settings: Settings) -> MeasuredLab:
    service = next((s for s in lab.services if s.endpoint.protocol is Protocol.TCP), None)
    if service is None:
        raise UsageError("no service of the topology is over TCP: there is nothing to load")
    clients = clients_of(lab, service)
    entries = tuple(
        one
        for one in planner.plan_for(lab).resources
        if isinstance(one, IpvsRealServer) and one.service == service.match
    )
    paths = {s.node: reply_path(lab, service, s.node, clients[0]) for s in service.real_servers}
    return MeasuredLab(lab, service, clients, entries, paths, settings)


def _point(measured: MeasuredLab, count: int) -> ScalePoint:
    """Measure with the first ``count`` real servers in the service."""
    settings, lab = measured.settings, measured.lab
    servers = measured.service.real_servers[:count]
    _put_in_service(measured, {server.node for server in servers})
    own = any(lab.node(server.node).run for server in servers)
    path = "/" if own else f"/bytes/{settings.reply}"
    clients = [lab.netns(node.name) for node in measured.clients]
    connections = settings.connections * count
    start = read_moment(measured.namespaces)
    with load.running(clients, measured.service.endpoint, path, connections) as running:
        _wait(settings.warm_up)
        moments = [read_moment(measured.namespaces)]
        for _ in range(settings.windows):
            _wait(settings.seconds)
            moments.append(read_moment(measured.namespaces))
    end = _drained(measured)
    rates = [
        measured.received(one, two)[0] * 8 / (two.when - one.when) for one, two in pairwise(moments)
    ]
    use = measured.link_use(moments[0], moments[-1])
    results = running.results
    return ScalePoint(
        servers=count,
        throughput=tuple(round(rate) for rate in rates),
        expected=throughput(measured.paths[server.node] for server in servers),
        # Of several clients the slowest.
        latency=max(
            (r.latency for r in results if r.latency), key=lambda one: one.p50, default=None
        ),
        requests=sum(one.requests for one in results),
        errors=sum(one.errors for one in results),
        busy=round(moments[-1].processors.busy_since(moments[0].processors), 3),
        director=measured.director_load(start, end, use),
    )


def _put_in_service(measured: MeasuredLab, nodes: set[str]) -> None:
    """Let IPVS's table have the entries of ``nodes`` alone."""
    lab = measured.lab
    inside = [one for one in measured.entries if one.real_server.node in nodes]
    outside = [one for one in measured.entries if one.real_server.node not in nodes]
    undo.undo(outside, lab.name)
    apply_to_running(lab, *inside)


def _drained(measured: MeasuredLab) -> Moment:
    """Wait until what was under way has arrived, and return the counts then."""
    deadline = time.monotonic() + DRAIN_SECONDS
    last = read_moment(measured.namespaces)
    while True:
        _wait(QUIET)
        now = read_moment(measured.namespaces)
        if measured.received(last, now) == (0, 0) or now.when > deadline:
            return now
        last = now


def _wait(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 (what is waited for is that time passes)


def _curve(
    measured: MeasuredLab, method: ForwardingMethod, points: Sequence[ScalePoint]
) -> ScaleCurve:
    shared = {way for path in measured.paths.values() for way in path[1:] if way.rate}
    limits = tuple(sorted(f"{way.node} on {way.network}: {_bits(way.rate)}" for way in shared))
    curve = judge(ScaleCurve(method, tuple(points), limits))
    return replace(curve, full_at=_full_at(points))


def _full_at(points: Sequence[ScalePoint]) -> int:
    """Calculate with how many real servers the director's busiest link would be full; 0: unknown.

    From the last point that left room on it: its use grows with what the clients receive.
    """
    room = [one for one in points if 0 < one.director.use < _ROOM] or points[:1]
    return round(room[-1].servers / room[-1].director.use) if room[-1].director.use else 0


_ROOM = 0.8
"""The share of a link's rate in use up to which it does not limit what is sent."""


def _bits(rate: float) -> str:
    """Format bits per second as tc(8) does."""
    for unit, name in ((1e9, "gbit"), (1e6, "mbit"), (1e3, "kbit")):
        if rate >= unit:
            return f"{rate / unit:.3g}{name}"
    return f"{rate:.0f}bit"
