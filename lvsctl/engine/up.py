"""Bring a lab up, or make the running one equal to its topology."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace

from lvsctl.engine.garbage import without_collection
from lvsctl.engine.labs import configured, remove_surely
from lvsctl.engine.read_back import check_applied
from lvsctl.errors import LabError, LvsctlError
from lvsctl.kernel import commands, features, probe, registry
from lvsctl.kernel.apply import apply_plan
from lvsctl.kernel.registry import Entry, State
from lvsctl.model.event import Emit, RollingBack, ignore
from lvsctl.model.lab import Lab
from lvsctl.model.service import (
    Encapsulation,
    ForwardingMethod,
    FwMark,
    Protocol,
    RealServer,
    Scheduler,
    TunnelKind,
)
from lvsctl.plan import commanded, planner
from lvsctl.plan.stages import Plan, Stage, Up
from lvsctl.resources.base import Resource
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology
from lvsctl.traffic.responder import responder_of


def bring_up(
    topology: Topology,
    overrides: Overrides = Overrides(),  # noqa: B008 (frozen)
    emit: Emit = ignore,
) -> Up:
    """Bring the lab of ``topology`` up, or make the running one equal to it.

    Raises TopologyError, LabError, HostError, KernelError. Where it fails half-way, or is
    interrupted, a new lab is removed again, and a running one made what it was.
    """
    with without_collection():
        lab = planner.load_lab(topology, overrides)
        if b"timeline" in topology.text:
            from lvsctl.engine.timeline import check_timeline  # with all faults: heavy

            check_timeline(topology, lab)
        plan = planner.plan_for(lab)
        probe.load_ipvs()
        features.check(rare_features(lab))
        with registry.lock(lab.name):
            entry = _entry(lab, plan, topology, overrides)
            before = registry.read(lab.name)
            running = _running_lab(before)
            if before is None:
                return _create(lab, plan, entry, emit)
            if running is None:  # left by a command that was killed, or by another version
                registry.remove(lab.name)
                return _create(lab, plan, entry, emit)
            from lvsctl.engine import reconcile  # with all faults: heavy, and a new lab needs none

            old = reconcile.Form(running, planner.plan_for(running), before)
            entry = replace(entry, started=before.started, state=State.UP)
            return reconcile.change(old, reconcile.Form(lab, plan, entry), emit)


@contextmanager
def temporary_lab(topology: Topology, overrides: Overrides) -> Iterator[Lab]:
    """A lab inside the ``with`` block, removed afterwards. ``overrides`` name it.

    Raises LabError if a lab of that name is running, and what ``bring_up`` raises.
    """
    name = planner.load_lab(topology, overrides).name
    if registry.read(name) is not None:
        raise LabError(f"lab {name} exists already", hint=f"lvsctl down {name}")
    with ExitStack() as stack:
        # Registered before the lab exists, so that no signal leaves it behind.
        stack.callback(remove_surely, name)
        yield bring_up(topology, overrides).lab


def apply_to_running(lab: Lab, *resources: Resource) -> None:
    """Apply resources to a running lab: what is there already is changed. Raises KernelError."""
    stage = Stage("resources", resources)
    apply_plan((stage,), lab.name, ignore, respond=responder_of(lab), reconciling=True)


_EVERYWHERE = frozenset({Scheduler.RR, Scheduler.WRR, Scheduler.LC, Scheduler.WLC})
"""Schedulers that every kernel with IPVS has: not tried before."""


def rare_features(lab: Lab) -> set[str]:
    """Return what a lab needs of the kernel that some kernels lack, by names of ``features``."""
    found = {
        f"scheduler {one.scheduler}" for one in lab.services if one.scheduler not in _EVERYWHERE
    }
    if lab.ipv6:
        found.add("ipv6")
    if any(node.mss_clamp is not None for node in lab.nodes):
        found.add("mss clamp")
    if lab.ecmp:
        found.add("multipath routes")
    for service in lab.services:
        if service.engine:
            found.add(f"persistence engine {service.engine}")
        if isinstance(service.match, FwMark):
            found.add("marks")
        if service.snat:
            found.add("masquerade")
        if any(endpoint.protocol is Protocol.SCTP for endpoint in service.endpoints):
            found.add("sctp")
        for server in service.by(ForwardingMethod.TUN):
            found |= {str(server.tunnel(vip)) for vip in service.vips}
            found.add(_encapsulation(server))
    return found - {str(TunnelKind.IPIP)}


def _encapsulation(server: RealServer) -> str:
    over_ipv6 = server.encapsulation is Encapsulation.GUE and server.rip.version == 6
    return "gue6" if over_ipv6 else str(server.encapsulation)


def _create(lab: Lab, plan: Plan, entry: Entry, emit: Emit) -> Up:
    """Register the lab, apply its plan, read it back and mark it as up; remove it on errors."""
    commands.check_programs(plan.resources)
    with ExitStack() as failing:
        # Before the first effect: whatever happens from here on, nothing stays.
        failing.callback(_remove, lab.name, emit)
        try:
            registry.begin(entry)
        except LvsctlError:
            failing.pop_all()  # there is nothing of ours to remove
            raise
        apply_plan(_without_owned(plan), lab.name, emit, respond=responder_of(lab))
        check_applied(lab, plan)
        commands.wait_for_servers(lab, emit)
        registry.mark(entry, State.UP)
        failing.pop_all()
    return Up(lab, created=True)


def _without_owned(plan: Plan) -> Plan:
    """Return a plan without what keepalived, started by it, sets up itself."""
    owned = commanded.owned_by_keepalived(plan)
    plan = Plan(plan.lab, commanded.without_owned(plan.stages))
    if not owned:
        return plan
    stages = (
        Stage(
            stage.title, tuple(one for one in stage.resources if not commanded.is_owned(one, owned))
        )
        for stage in plan.stages
    )
    return Plan(plan.lab, tuple(stage for stage in stages if stage.resources))


def _remove(lab: str, emit: Emit) -> None:
    emit(RollingBack(lab))
    registry.remove(lab)


def _entry(lab: Lab, plan: Plan, topology: Topology, overrides: Overrides) -> Entry:
    return Entry(
        lab=lab.name,
        topology=topology.text.decode(),
        source=topology.source,
        argument=topology.argument,
        overrides={key: value for key, value in asdict(overrides).items() if value is not None},
        namespaces=plan.namespaces,
        started=time.time(),
    )


def _running_lab(entry: Entry | None) -> Lab | None:
    """Return the lab that runs; None where its entry does not say, and it has to be removed."""
    if entry is None or entry.state is not State.UP:
        return None
    try:
        return configured(entry)
    except LvsctlError:
        return None
