"""Bringing a lab up, or making the running one equal to its topology."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from lvsctl import planner, spec
from lvsctl.app.labs import breaking_of, configured, responder_of
from lvsctl.app.plans import lab_of
from lvsctl.errors import LabError, LvsctlError
from lvsctl.kernel import commands, injected, netns, probe, processes, registry
from lvsctl.kernel.registry import Entry, State
from lvsctl.model.event import Emit, Undoing, ignore
from lvsctl.model.lab import Lab
from lvsctl.ops import AddLink, AddNamespace, Plan
from lvsctl.results import Up
from lvsctl.spec.shipped import Topology
from lvsctl.values import asdict, replace

# What only some commands need is imported by these: tests/unit/test_cli_imports.py.
if TYPE_CHECKING:
    from lvsctl.model.state import NodeState


def up(
    topology: Topology,
    overrides: spec.Overrides = spec.Overrides(),  # noqa: B008
    emit: Emit = ignore,
) -> Up:
    """Bring the lab of ``topology`` up, or make the running one equal to it.

    Raises SpecError, LabError, HostError, KernelError. Where it fails half-way, or is
    interrupted, a new lab is removed again; a running one stays as it then is, until the
    next ``up``, which makes it anew.
    """
    with _collecting_no_garbage():
        lab = lab_of(topology, overrides)
        probe.load_ipvs()
        with registry.lock(lab.name):
            entry = registry.read(lab.name)
            if entry is not None and (before := _understood(entry)) is not None:
                return _converged(lab, topology, overrides, entry, before, emit)
            if entry is not None:  # left by a command that was killed, or by another lvsctl
                registry.remove(lab.name)
            return _created(lab, topology, overrides, emit)


@contextmanager
def _collecting_no_garbage() -> Iterator[None]:
    """A plan is thousands of values that live on: going through them over and over finds none."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _created(lab: Lab, topology: Topology, overrides: spec.Overrides, emit: Emit) -> Up:
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
        execute.execute(plan, lab.name, emit, respond=responder_of(lab))
        commands.wait_for_servers(lab, emit)
        registry.mark(entry, State.UP)
        undoing.pop_all()
    return Up(lab, created=True)


def _give_up(lab: str, emit: Emit) -> None:
    emit(Undoing(lab))
    registry.remove(lab)


def _entry(lab: Lab, plan: Plan, topology: Topology, overrides: spec.Overrides) -> Entry:
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


def _converged(
    lab: Lab, topology: Topology, overrides: spec.Overrides, entry: Entry, old: Lab, emit: Emit
) -> Up:
    from lvsctl import converge
    from lvsctl.kernel import execute, undo

    plan, before = planner.plan_for(lab), planner.plan_for(old)
    _refuse_rewiring(lab.name, before, plan)
    netns.name_again(lab.name, before.namespaces)
    restored = _unbroken(old)
    outdated = undo.obsolete(before.ops, plan.ops)
    if outdated:
        registry.mark(entry, State.CHANGING)
        undo.undo(outdated, lab.name, emit)
    states = _states(lab, plan, existing_only=True)
    found = converge.difference(plan, states, commands.ended_commands(lab, states.keys()))
    if found.extra or found.missing:
        registry.mark(entry, State.CHANGING)
    undo.undo(found.extra, lab.name, emit)
    if found.missing:
        execute.execute(found.missing, lab.name, emit, respond=responder_of(lab), converging=True)
        commands.wait_for_servers(lab, emit)
    fresh = _entry(lab, plan, topology, overrides)
    registry.write(replace(fresh, started=entry.started, state=State.UP))
    added = tuple(op for stage in found.missing for op in stage.ops)
    # What went along with something larger needs no mention, and no command to repeat it.
    removed = tuple(undo.independent((*outdated, *found.extra)))
    return Up(
        lab,
        created=False,
        added=added,
        removed=removed,
        restored=restored,
        edited=found.edited,
    )


def _unbroken(lab: Lab) -> tuple[str, ...]:
    """Take back the faults that are injected into the lab, for the holder of its lock.

    Where one cannot be taken back, because its node was removed by hand, it is forgotten:
    what the plan speaks of is made so anyway.
    """
    noted = injected.read(lab.name)
    if noted:
        try:
            breaking_of(lab).restore_held()
        except LvsctlError:
            injected.write(lab.name, ())
    return tuple(map(str, noted))


def _refuse_rewiring(lab: str, before: Plan, after: Plan) -> None:
    """A node that stays keeps its interfaces: they cannot be exchanged under what uses them."""
    cables = {(op.node_netns, op.device): op for op in before.ops if isinstance(op, AddLink)}
    kept = {op.netns for op in before.ops if isinstance(op, AddNamespace)}
    changed: list[str] = []
    for op in after.ops:
        if not isinstance(op, AddLink) or op.node_netns not in kept:
            continue
        old = cables.get((op.node_netns, op.device))
        if old is None:
            changed.append(f"{op.port} would be connected to {op.device}")
        elif old.mac != op.mac:
            changed.append(f"{op.port} would get another first address on {op.device}")
    gone = cables.keys() - {(o.node_netns, o.device) for o in after.ops if isinstance(o, AddLink)}
    staying = {op.netns for op in after.ops if isinstance(op, AddNamespace)}
    changed += [
        f"{cables[key].port} would be taken off {key[1]}"
        for key in sorted(gone)
        if key[0] in staying
    ]
    if changed:
        raise LabError(
            f"lab {lab} is running and cannot be changed to this topology in place:\n  "
            + "\n  ".join(changed),
            hint=f"lvsctl down {lab}, then up again",
        )


def _states(lab: Lab, plan: Plan, *, existing_only: bool = False) -> dict[str, NodeState]:
    """The state of every namespace of the lab, switches too, as far as the plan speaks of it."""
    from lvsctl import converge
    from lvsctl.kernel import state

    names: Iterable[str] = plan.namespaces
    if existing_only:
        names = netns.existing(lab.name, names)
    directors = {lab.netns(node.name) for node in lab.directors}
    return state.lab_state(
        names,
        sysctls=converge.settings_of(plan),
        directors=directors.intersection(names),
        pids=processes.daemons(lab.name).values(),
    )
