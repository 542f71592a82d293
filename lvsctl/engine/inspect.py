"""A running lab looked at: its state, its claims, one request's way, what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from lvsctl.engine.deviations import find_deviations
from lvsctl.engine.findings import Diagnosis, Inspection, NodeInspection, Verification
from lvsctl.engine.labs import find_node
from lvsctl.errors import UsageError
from lvsctl.kernel import injected, processes, registry
from lvsctl.kernel.registry import State
from lvsctl.model.lab import Lab, Role
from lvsctl.model.service import VirtualService
from lvsctl.model.state import NodeState

if TYPE_CHECKING:
    from lvsctl.capture.capture import LiveCapture
    from lvsctl.model.evidence import Evidence
    from lvsctl.model.exchange import Exchange
    from lvsctl.model.walk import Walk
    from lvsctl.watch.loop import Watcher


def inspect_lab(lab: Lab, nodes: Sequence[str] = ()) -> Inspection:
    """The state of some nodes of a running lab (all of them where none is named)."""
    from lvsctl.kernel import state

    wanted = [find_node(lab, name) for name in nodes] or list(lab.nodes)
    names = {lab.netns(node.name): node.name for node in wanted}
    states = state.lab_state(
        names,
        directors=[lab.netns(node.name) for node in wanted if node.role is Role.DIRECTOR],
        pids=processes.daemons(lab.name).values(),
    )
    faults = tuple(map(str, injected.read(lab.name)))
    return inspection_of(lab, {names[netns]: found for netns, found in states.items()}, faults)


def inspection_of(
    lab: Lab, states: Mapping[str, NodeState], faults: tuple[str, ...] = ()
) -> Inspection:
    """Compare nodes' states with the topology."""
    found = find_deviations(lab, states)
    nodes = {
        name: NodeInspection(lab.node(name).role, state, found[name])
        for name, state in states.items()
    }
    return Inspection(lab, nodes, faults)


def verify_lab(lab: Lab) -> Verification:
    """Send requests to every virtual service of a running lab and judge what comes of them."""
    from lvsctl.engine import collect

    return recompute(collect.evidence_of(lab))


def recompute(evidence: Evidence) -> Verification:
    """What evidence says, a saved report's too: no kernel is asked."""
    from lvsctl import claims as judges

    return Verification(evidence.lab, tuple(judges.findings(evidence)), evidence)


def diagnose_lab(lab: Lab) -> Diagnosis:
    """Why a running lab does not do what was promised: seen, not looked up."""
    from lvsctl import diagnosis
    from lvsctl.engine import collect

    entry = registry.read(lab.name)
    said = diagnosis.conclusion(collect.evidence_of(lab), entry.source if entry else "")
    return Diagnosis(
        lab, said.causes, said.remarks, said.ruled_out, works=said.works, next_steps=said.next_steps
    )


def walk_request(lab: Lab, service: str | None = None, asking: str | None = None) -> Walk:
    """Send one request to a virtual service (the first) from a node (the first client).

    Raises UsageError with the names there are.
    """
    from lvsctl.engine import collect
    from lvsctl.walk import walk as walking

    client = lab.having(Role.CLIENT)[0] if asking is None else find_node(lab, asking)
    evidence = collect.evidence_of_request(lab, find_service(lab, service), client)
    return next(walking.walks(evidence))


def find_service(lab: Lab, name: str | None) -> VirtualService:
    """The virtual service called ``name``, or the first. Raises UsageError."""
    for service in lab.services:
        if name in (None, service.name):
            return service
    names = ", ".join(service.name for service in lab.services)
    raise UsageError(f"lab {lab.name} has no service {name!r}", hint=f"it has: {names}")


def open_capture(lab: Lab, taps: Sequence[str] = (), expression: str = "") -> LiveCapture:
    """A capture at some taps of a running lab (at all where none is named), not yet begun.

    Raises UsageError where a tap's node is not in the lab.
    """
    from lvsctl.capture.capture import LiveCapture
    from lvsctl.capture.listener import Options
    from lvsctl.model.frame import Tap

    wanted = frozenset(map(Tap.parse, taps))
    for tap in sorted(wanted):
        if not tap.node:
            raise UsageError(f"{tap} is no tap", hint="a tap is NODE:DEVICE, as in director:lan")
        find_node(lab, tap.node)
    return LiveCapture(
        {lab.netns(node.name): node.name for node in lab.nodes},
        Options(filter=expression, taps=wanted),
    )


def watch_lab(lab: Lab, *, interval: float = 1.0, probing: bool = False) -> Watcher:
    """A running lab to be looked at again and again; ends when it runs no more, or as another.

    Raises UsageError where its director has no IPVS to look at.
    """
    from lvsctl.watch.loop import Watcher

    entry = registry.read(lab.name)

    def still_there() -> bool:
        now = registry.read(lab.name)
        if now is None or entry is None or now.state not in (State.UP, State.CHANGING):
            return False
        made = attrgetter("started", "topology", "overrides")
        return bool(made(now) == made(entry))

    return Watcher(lab, interval=interval, probing=probing, still_there=still_there)


def send_requests(lab: Lab, index: int, count: int) -> tuple[Exchange, ...]:
    """``count`` requests, one after the other, from the first client to one virtual service."""
    from lvsctl.traffic import client

    service = lab.services[index]
    return client.requests(
        lab.netns(lab.having(Role.CLIENT)[0].name),
        service.vip,
        service.key.port,
        count=count,
        protocol=service.key.protocol,
    )
