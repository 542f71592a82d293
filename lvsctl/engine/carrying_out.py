"""A lab that was read, carried out: a new one made, or the running one changed."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace

from lvsctl.engine.labs import configured, responder_of
from lvsctl.engine.results import Up
from lvsctl.errors import LvsctlError
from lvsctl.kernel import commands, probe, registry
from lvsctl.kernel.ahead import Ahead
from lvsctl.kernel.registry import Entry, State
from lvsctl.model.event import Emit, Undoing
from lvsctl.model.lab import Lab
from lvsctl.plan import planner
from lvsctl.resources.ops import Plan
from lvsctl.topology.overrides import Overrides
from lvsctl.topology.shipped import Topology


def carried_out(lab: Lab, topology: Topology, overrides: Overrides, ahead: Ahead, emit: Emit) -> Up:
    """Make ``lab`` run, or the running one equal to it; ``bringing_up.up`` says how it fails.

    It is what ``topology`` and ``overrides`` describe; ``ahead`` has its first namespaces.
    """
    probe.load_ipvs()
    with registry.lock(lab.name):
        entry = registry.read(lab.name)
        if entry is not None and (before := _understood(entry)) is not None:
            return _changed(before, entry, lab, topology, overrides, emit)
        if entry is not None:  # left by a command that was killed, or by another lvsctl
            registry.remove(lab.name)
        return _created(lab, topology, overrides, ahead, emit)


def _created(lab: Lab, topology: Topology, overrides: Overrides, ahead: Ahead, emit: Emit) -> Up:
    from lvsctl.kernel import execute

    plan = planner.plan_for(lab)
    with ExitStack() as undoing:
        # Before the first effect: from here on, whatever happens, nothing stays.
        undoing.callback(_give_up, lab.name, emit)
        entry = _entry(lab, plan, topology, overrides)
        try:
            registry.begin(entry)
        except LvsctlError:
            undoing.pop_all()  # nothing of ours is there yet
            raise
        execute.execute(plan, lab.name, emit, respond=responder_of(lab), ahead=ahead)
        commands.wait_for_servers(lab, emit)
        registry.mark(entry, State.UP)
        undoing.pop_all()
    return Up(lab, created=True)


def _give_up(lab: str, emit: Emit) -> None:
    emit(Undoing(lab))
    registry.remove(lab)


def _entry(lab: Lab, plan: Plan, topology: Topology, overrides: Overrides) -> Entry:
    import time

    return Entry(
        lab=lab.name,
        topology=topology.text.decode(),
        source=topology.source,
        overrides={k: v for k, v in asdict(overrides).items() if v is not None},
        namespaces=plan.namespaces,
        started=time.time(),
    )


def _understood(entry: Entry) -> Lab | None:
    """The lab that runs; None where that cannot be told, and only its removal helps."""
    if entry.state is not State.UP:
        return None
    try:
        return configured(entry)
    except LvsctlError:
        return None


def _changed(
    before: Lab,
    entry: Entry,
    lab: Lab,
    topology: Topology,
    overrides: Overrides,
    emit: Emit,
) -> Up:
    from lvsctl.engine.reconcile import Form, change

    plan = planner.plan_for(lab)
    fresh = replace(_entry(lab, plan, topology, overrides), started=entry.started, state=State.UP)
    old = Form(before, planner.plan_for(before), entry)
    return change(old, Form(lab, plan, fresh), emit)
