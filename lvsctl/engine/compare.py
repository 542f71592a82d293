"""Compare NAT, TUN and DR: the classic table, with what was measured beside what is quoted.

Each method gets a lab of the same topology, which is verified; the rows are taken from that
evidence and from trials in the lab. Commands in the result name the lab as `lvsctl up` calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from lvsctl import claims
from lvsctl.claims import compare as judged
from lvsctl.claims.trace import Trace, traces
from lvsctl.engine import collect
from lvsctl.engine import compare_trials as trials
from lvsctl.engine.up import temporary_lab
from lvsctl.model.claim import Verdict, overall
from lvsctl.model.compare import (
    QUOTED,
    SOURCE,
    TITLES,
    ComparedRow,
    Comparison,
    MethodCell,
    Subject,
)
from lvsctl.model.frame import Frame
from lvsctl.model.lab import Lab
from lvsctl.model.scale import Scale
from lvsctl.model.service import ForwardingMethod
from lvsctl.plan import planner
from lvsctl.resources.ipvs_real_server import FORWARD_FLAG
from lvsctl.topology import shipped
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology

TOPOLOGY = "methods"
FAR = "tun"
"""A shipped topology with real servers behind a router, one of them 20 ms away."""

METHODS = (ForwardingMethod.NAT, ForwardingMethod.TUN, ForwardingMethod.DR)

WITHOUT = {
    ForwardingMethod.NAT: ("wrong-gateway",),
    ForwardingMethod.TUN: (
        "vip-missing",
        "tunnel-down",
        "rp-filter-on-tunnel",
        "gateway-is-director",
    ),
    ForwardingMethod.DR: (
        "vip-missing",
        "arp-ignore-unset",
        "arp-announce-unset",
        "gateway-is-director",
    ),
}
"""Faults that take away from a real server what its method needs."""

_FAR_REQUESTS = 6

Report = Callable[[str, float], None]


def compare(
    subjects: Collection[Subject] = (),
    scale: Scale | None = None,
    report: Report = lambda *_: None,
) -> Comparison:
    """Compare the three methods by ``subjects``, or by all.

    ``scale`` is an earlier result of `lvsctl scale`, for the number of real servers. ``report``
    gets what is done now, and which share of all is done. The labs are removed, also on an
    exception. Raises LabError if labs of their names are running, and what ``bring_up`` raises.
    """
    wanted = [one for one in Subject if not subjects or one in subjects]
    found: dict[Subject, list[MethodCell]] = {one: [] for one in wanted}
    verified: dict[str, Verdict] = {}
    beside: list[str] = []
    for number, method in enumerate(METHODS):

        def note(text: str, share: float, done: int = number, now: object = method) -> None:
            report(f"{now}: {text}", (done + share) / (len(METHODS) + 1))

        note("verifying", 0.0)
        with _lab(TOPOLOGY, method) as lab:
            evidence = collect.collect_evidence(lab, settings=False)
            verified[str(method)] = overall(claims.findings(evidence))
            trace = next(traces(evidence))
            beside.append(judged.segment(trace))
            for subject, cell in _cells(lab, method, trace, wanted, note):
                found[subject].append(cell)
    share = len(METHODS) / (len(METHODS) + 1)
    if Subject.NETWORK in wanted:
        report("real servers behind a router, 20 ms away", share)
        found[Subject.NETWORK] = _far(beside)
    if Subject.IPV6 in wanted:
        report("IPv6", (share + 1) / 2)
        found[Subject.IPV6] = [_ipv6(method) for method in METHODS]
    if Subject.NUMBER in wanted:
        found[Subject.NUMBER] = [_number(method, scale) for method in METHODS]
    rows = tuple(ComparedRow(one, TITLES[one], _quoted(one, found[one])) for one in wanted)
    return Comparison(TOPOLOGY, SOURCE, METHODS, rows, verified)


def _quoted(subject: Subject, cells: Sequence[MethodCell]) -> tuple[MethodCell, ...]:
    texts = QUOTED.get(subject, ("",) * len(METHODS))
    return tuple(replace(cell, quoted=text) for cell, text in zip(cells, texts, strict=True))


@contextmanager
def _lab(topology: str, method: ForwardingMethod | None = None) -> Iterator[Lab]:
    """A lab of a shipped topology under a name of its own, removed afterwards."""
    text = Topology(topology, shipped.text_of(topology).encode(), topology)
    with temporary_lab(text, Overrides(name=f"compare-{topology}", forward=method)) as lab:
        yield lab


def _cells(
    lab: Lab,
    method: ForwardingMethod,
    trace: Trace,
    wanted: Collection[Subject],
    note: Report,
) -> Iterator[tuple[Subject, MethodCell]]:
    """Yield the cells of a method that its own lab shows."""
    # Labs side by side: one that runs cannot change from NAT to another method.
    name = f"{TOPOLOGY}-{method}"
    up = f"lvsctl up {TOPOLOGY} --forward {method} --name {name}"
    server = lab.services[0].real_servers[0].node
    plan = planner.plan_for(lab)
    shown, walked = f"{up} && lvsctl verify {name} -v", f"{up} && lvsctl walk {name}"
    asked = f"{up} && lvsctl exec {name}/{lab.default_client.name} -- curl -s http://{trace.vip}"
    rows: dict[Subject, Callable[[], MethodCell]] = {
        Subject.SERVER: lambda: judged.needs(
            lab, plan, method, server, f"lvsctl plan {TOPOLOGY} --forward {method}"
        ),
        Subject.GATEWAY: lambda: judged.gateway(trace, method, walked),
        Subject.ADDRESSES: lambda: judged.addresses(trace, method, walked),
        Subject.CLIENT: lambda: judged.client_seen(trace, method, f"{asked}/"),
        Subject.LOAD: lambda: judged.load(trace, method, shown),
        Subject.MTU: lambda: judged.largest(trace, trials.large_reply(lab), method, shown),
        Subject.EXPOSED: lambda: _named(trials.exposed(lab, method), lab, name, up),
        Subject.PORT: lambda: _named(trials.other_port(lab, method), lab, name, up),
        Subject.LATENCY: lambda: judged.latency(
            trace, *trials.times(lab), method, f"{asked}/ -o /dev/null -w '%{{time_total}}'"
        ),
        Subject.WITHOUT: lambda: _without(lab, method, name, up, note),
    }
    for position, (subject, make) in enumerate(rows.items()):
        if subject in wanted:
            note(TITLES[subject], 0.2 + 0.3 * position / len(rows))
            yield subject, make()


def _named(cell: MethodCell, lab: Lab, name: str, up: str) -> MethodCell:
    """Name in a cell's command the lab as the user brings it up."""
    return replace(cell, command=f"{up} && {cell.command.replace(lab.name, name)}")


def _without(lab: Lab, method: ForwardingMethod, name: str, up: str, note: Report) -> MethodCell:
    parts: list[str] = []
    frames: list[Frame] = []
    faults = WITHOUT[method]
    for number, fault in enumerate(faults):
        note(f"without what {fault} takes away", 0.5 + 0.5 * number / len(faults))
        text, seen = trials.without(lab, fault)
        parts.append(text)
        frames += seen
    command = f"{up} && lvsctl fault inject {faults[0]} --lab {name} && lvsctl verify {name}"
    return MethodCell(method, "; ".join(parts), command, frames=tuple(frames))


def _far(beside: Sequence[str]) -> list[MethodCell]:
    """Try each method with the real servers of a topology that are behind a router.

    ``beside``: what became of requests to real servers on the director's network.
    """
    found = []
    with _lab(FAR) as lab:
        server = lab.services[0].real_servers[-1]
        delay = lab.impairment_of(lab.node(server.node), lab.node(server.node).networks[0]).delay
        vip = lab.services[0].endpoint
        for method, near in zip(METHODS, beside, strict=True):
            result = trials.forwarded_by(lab, method, _FAR_REQUESTS)
            flag = FORWARD_FLAG[method]
            text = f"same segment: {near}; behind a router, up to {delay:g} ms away: {result}"
            command = (
                f"lvsctl up {FAR} && lvsctl exec {FAR}/{lab.directors[0].name} -- ipvsadm -e -t "
                f"{vip.vip}:{vip.port} -r {server.rip} {flag} && lvsctl verify {FAR}"
            )
            figures = {"answered": result.answered, "sent": result.sent}
            found.append(MethodCell(method, text, command, figures=figures))
    return found


def _ipv6(method: ForwardingMethod) -> MethodCell:
    topology = f"{method}-ipv6"
    with _lab(topology) as lab:
        result = trials.asked(lab, 4)
    return MethodCell(method, f"{'yes' if result.answered == result.sent else 'no'}: {result}",
                f"lvsctl up {topology} && lvsctl verify {topology}",
                figures={"answered": result.answered, "sent": result.sent})  # fmt: skip


def _number(method: ForwardingMethod, scale: Scale | None) -> MethodCell:
    command = f"lvsctl scale --forward {method}"
    curve = next((one for one in scale.curves if one.method is method), None) if scale else None
    if curve is None or curve.bend is None:
        return MethodCell(method, "not measured here", command, done=False)
    bend = curve.bend
    most = max(point.servers for point in curve.points)
    text = f"throughput bends between {bend.after} and {bend.before}"
    if not bend.before:
        text = f"throughput grows up to {most}, which were tried"
    if curve.full_at:
        text += f"; director's link full at about {curve.full_at} (calculated)"
    figures = {"after": bend.after, "before": bend.before, "full": curve.full_at}
    return MethodCell(method, text, command, figures=figures)
