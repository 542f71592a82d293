"""Examine a running lab: `inspect`, `verify`, `diagnose`, `walk`, `capture` and `watch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from lvsctl import claims, diagnosis
from lvsctl.capture.capture import LiveCapture
from lvsctl.capture.listener import Options
from lvsctl.engine import collect
from lvsctl.engine.ask_services import STAGES
from lvsctl.engine.findings import (
    Diagnosis,
    Inspection,
    NodeInspection,
    SwitchInspection,
    Verification,
)
from lvsctl.engine.garbage import without_collection
from lvsctl.engine.labs import find_node, up_command
from lvsctl.engine.whole import whole_state
from lvsctl.errors import UsageError
from lvsctl.kernel import netns, paths, probe, registry
from lvsctl.kernel.registry import State
from lvsctl.model.claim import Verdict
from lvsctl.model.event import Emit, StageStarted, ignore
from lvsctl.model.evidence import Evidence, Exchange
from lvsctl.model.frame import Tap
from lvsctl.model.lab import Lab, Role
from lvsctl.model.masters import vrrp_state
from lvsctl.model.service import VirtualService
from lvsctl.model.state import NodeState
from lvsctl.model.walk import Walk
from lvsctl.plan.deviations import find_deviations
from lvsctl.resources.base import Deviation
from lvsctl.resources.typed import typeable
from lvsctl.traffic import client
from lvsctl.walk.walk import walks
from lvsctl.watch.loop import Watcher


@without_collection()
def inspect_lab(lab: Lab, nodes: Sequence[str] = ()) -> Inspection:
    """Read the state of some nodes of a running lab, or of all. Raises UsageError."""
    wanted = [find_node(lab, name) for name in nodes] or list(lab.nodes)
    names = {lab.netns(node.name): node.name for node in wanted}
    switches = {} if nodes else {lab.netns(one.name): one.name for one in lab.networks}
    states = whole_state(lab, names=(*names, *netns.existing(lab.name, switches)))
    faults = tuple(map(str, paths.read_faults(lab.name)))
    found = inspection_of(
        lab,
        {name: states[place] for place, name in names.items()},
        faults,
        {name: states[place] for place, name in switches.items() if place in states},
    )
    return typeable_outside(found) if probe.inside_machine() else found


def typeable_outside(found: Inspection) -> Inspection:
    """Write the commands of deviations as they are typed outside the machine."""

    def typed(several: tuple[Deviation, ...]) -> tuple[Deviation, ...]:
        lab = found.lab
        return tuple(
            replace(one, command=typeable(one.command, lab, in_machine=True)) for one in several
        )

    return replace(
        found,
        nodes={
            name: replace(one, deviations=typed(one.deviations))
            for name, one in found.nodes.items()
        },
        switches={
            name: replace(one, deviations=typed(one.deviations))
            for name, one in found.switches.items()
        },
    )


def inspection_of(
    lab: Lab,
    states: Mapping[str, NodeState],
    faults: tuple[str, ...] = (),
    switches: Mapping[str, NodeState] | None = None,
) -> Inspection:
    """Compare the states of nodes, and of networks' switches, with the topology."""
    every = (*states.values(), *(switches or {}).values())
    found = find_deviations(lab, {state.netns: state for state in every})
    nodes = {
        name: NodeInspection(
            lab.node(name).role, state, found[state.netns], vrrp_state(lab, name, state.links)
        )
        for name, state in states.items()
    }
    ports = {name: SwitchInspection(found[one.netns]) for name, one in (switches or {}).items()}
    return Inspection(lab, nodes, faults, ports)


@without_collection()
def verify_lab(lab: Lab, sender: str | None = None, *, emit: Emit = ignore) -> Verification:
    """Send requests to every virtual service of a running lab and decide its claims.

    ``sender`` is the node that sends them; default: the clients of each service. Raises
    UsageError if it does not exist.
    """
    node = None if sender is None else find_node(lab, sender)
    evidence = collect.collect_evidence(lab, node, settings=False, emit=emit)
    emit(_last_stage("deciding claims", evidence))
    found = recompute(evidence)
    if found.verdict is Verdict.PASS:
        return found
    return replace(found, evidence=collect.with_settings(found.evidence))


def _last_stage(title: str, evidence: Evidence) -> StageStarted:
    frames = len(evidence.frames)
    return StageStarted(f"{title} on {frames} frames", STAGES, STAGES)


def recompute(evidence: Evidence) -> Verification:
    """Decide all claims on evidence, for example of a saved report. Needs no kernel."""
    findings, notes = claims.findings(evidence), claims.notes(evidence)
    return Verification(evidence.lab, tuple(findings), evidence, tuple(notes))


@without_collection()
def diagnose_lab(lab: Lab, sender: str | None = None, *, emit: Emit = ignore) -> Diagnosis:
    """Collect evidence of a running lab and find why it does not work.

    ``sender`` as for ``verify_lab``.
    """
    node = None if sender is None else find_node(lab, sender)
    entry = registry.read(lab.name)
    up = up_command(entry) if entry else ""
    evidence = collect.collect_evidence(lab, node, patient=True, settings=False, emit=emit)
    emit(_last_stage("applying rules", evidence))
    found = None
    if all(exchange.answered for run in evidence.runs for exchange in run.all_exchanges):
        # Real servers that answer rightly are so many that their sysctls take longest to read.
        real_servers = [one.name for one in lab.having(Role.REAL_SERVER)]
        found = diagnosis.conclusion(collect.with_settings(evidence, but=real_servers), up)
    if found is None or not found.healthy:
        found = diagnosis.conclusion(collect.with_settings(evidence), up)
    inside = probe.inside_machine()

    def typed(command: str) -> str:
        return typeable(command, lab, in_machine=inside)

    return Diagnosis(
        lab,
        tuple(replace(cause, remedy=typed(cause.remedy)) for cause in found.causes),
        found.remarks,
        found.ruled_out,
        works=found.works,
        next_steps=tuple(map(typed, found.next_steps)),
        differences=found.differences,
    )


def walk_request(lab: Lab, service: str | None = None, sender: str | None = None) -> Walk:
    """Send one request to a virtual service (the first) from a node (the first client).

    Raises UsageError that lists the names that exist.
    """
    node = lab.default_client if sender is None else find_node(lab, sender)
    evidence = collect.collect_request_evidence(lab, find_service(lab, service), node)
    return next(walks(evidence))


def find_service(lab: Lab, name: str | None) -> VirtualService:
    """The virtual service called ``name``, or the first. Raises UsageError."""
    for service in lab.services:
        if name in (None, service.name):
            return service
    names = ", ".join(service.name for service in lab.services)
    raise UsageError(f"lab {lab.name} has no service {name!r}", hint=f"it has: {names}")


def open_capture(lab: Lab, taps: Sequence[str] = (), expression: str = "") -> LiveCapture:
    """A capture at some taps of a running lab, or at all; the caller starts it.

    Raises UsageError for a tap whose node does not exist.
    """
    wanted = frozenset(map(Tap.parse, taps))
    for tap in sorted(wanted):
        if not tap.node:
            raise UsageError(
                f"{tap} is not a tap", hint="a tap is NODE:DEVICE, for example director:lan"
            )
        find_node(lab, tap.node)
    return LiveCapture(
        {lab.netns(node.name): node.name for node in lab.nodes},
        Options(filter=expression, taps=wanted),
    )


def watch_lab(lab: Lab, *, interval: float = 1.0, probing: bool = False) -> Watcher:
    """Sample a running lab repeatedly, until it is removed or replaced by another.

    Raises UsageError if its director has no IPVS.
    """
    entry = registry.read(lab.name)

    def still_runs() -> bool:
        now = registry.read(lab.name)
        if now is None or entry is None or now.state not in (State.UP, State.CHANGING):
            return False
        identity = attrgetter("started", "topology", "overrides")
        return bool(identity(now) == identity(entry))

    return Watcher(lab, interval=interval, probing=probing, still_there=still_runs)


def send_requests(lab: Lab, index: int, count: int) -> tuple[Exchange, ...]:
    """Send ``count`` requests, one after the other, from the default client to one service."""
    service = lab.services[index]
    endpoint = service.endpoint
    return client.requests(
        lab.netns(lab.default_client.name),
        endpoint.vip,
        endpoint.port,
        count=count,
        protocol=endpoint.protocol,
        call="" if service.keeps_calls else None,
    )
