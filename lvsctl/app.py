"""What lvsctl does, command by command: the only place where the rooms are put together.

Runs where the labs are: on the host's kernel, or inside the machine. Which of the two,
and everything about terminals, is the business of ``cli``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from lvsctl import modes, planner, removing, spec
from lvsctl.errors import LabError, LvsctlError, UsageError
from lvsctl.kernel import commands, injected, netns, probe, processes, registry
from lvsctl.kernel.registry import Entry, State
from lvsctl.model.event import Emit, Undoing, ignore
from lvsctl.model.lab import Lab, Node, Role
from lvsctl.model.service import Scheduler, VirtualService
from lvsctl.ops import AddLink, AddNamespace, Listen, Plan
from lvsctl.results import Diagnosis, FaultListed, FaultShown, Inspection, Listed, Up, Verification
from lvsctl.spec import shipped
from lvsctl.spec.shipped import Topology

# What only some commands need is imported by these: tests/unit/test_cli_imports.py.
if TYPE_CHECKING:
    from lvsctl.breaking import Breaking
    from lvsctl.faults.base import Fault
    from lvsctl.kernel import execute
    from lvsctl.matrix import Cell, Column
    from lvsctl.model.evidence import Evidence
    from lvsctl.model.exchange import Exchange
    from lvsctl.model.state import NodeState
    from lvsctl.model.walk import Walk
    from lvsctl.observe.capture import LiveCapture
    from lvsctl.proving import Proof, Tell
    from lvsctl.watching.loop import Watcher

# ── topologies and plans: no kernel, no root ─────────────────────────────────────────────────


def lab_of(topology: Topology, overrides: spec.Overrides = spec.Overrides()) -> Lab:  # noqa: B008
    """The lab that a topology describes. Raises SpecError with every mistake in it."""
    return spec.load(topology.text, topology.source, overrides=overrides, rules=modes.violations)


def plan_of(lab: Lab) -> Plan:
    """What ``up`` does for ``lab``."""
    return planner.plan_for(lab)


# ── labs ─────────────────────────────────────────────────────────────────────────────────────


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
        execute.execute(plan, lab.name, emit, respond=_responder(lab))
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


def _responder(lab: Lab) -> execute.Respond:
    def respond(listens: tuple[Listen, ...], ready: processes.Ready) -> None:
        from lvsctl.kernel import privileges
        from lvsctl.traffic import responder

        def serving() -> None:
            privileges.give_up_root()  # from here on it only speaks with whoever asks
            ready(None)

        responder.serve(
            [
                responder.Listener(op.node, op.netns, op.protocol, op.port, ipv6=ipv6)
                for op in listens
                for ipv6 in ((False, True) if lab.ipv6 else (False,))
            ],
            serving,
        )

    return respond


def _understood(entry: Entry) -> Lab | None:
    """The lab that runs; None where that cannot be told, and only its removal helps."""
    if entry.state is not State.UP:
        return None
    try:
        return _configured(entry)
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
        execute.execute(found.missing, lab.name, emit, respond=_responder(lab), converging=True)
        commands.wait_for_servers(lab, emit)
    fresh = _entry(lab, plan, topology, overrides)
    registry.write(replace(fresh, started=entry.started, state=State.UP))
    added = tuple(op for stage in found.missing for op in stage.ops)
    # What went along with something larger needs no mention, and no command to repeat it.
    removed = tuple(undo.independent((*outdated, *found.extra)))
    return Up(lab, created=False, added=added, removed=removed, restored=restored)


def _unbroken(lab: Lab) -> tuple[str, ...]:
    """Take back the faults that are injected into the lab, for the holder of its lock.

    Where one cannot be taken back, because its node was removed by hand, it is forgotten:
    what the plan speaks of is made so anyway.
    """
    noted = injected.read(lab.name)
    if noted:
        try:
            _breaking(lab).restore_held()
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


def down(lab: str, *, wait: bool = False) -> registry.Removed:
    """Remove everything that ``lab`` owns (``lvsctl.removing``)."""
    return removing.down(lab, wait=wait)


def labs() -> tuple[Listed, ...]:
    """Every lab that there is anything of, by name."""
    return tuple(_listed(entry) for entry in registry.labs())


def _listed(entry: Entry) -> Listed:
    if entry.state is State.BROKEN:
        return Listed(entry, None, answering=False)
    try:
        lab = _configured(entry)
    except LvsctlError as error:
        broken = replace(entry, state=State.BROKEN, problem=error.message)
        return Listed(broken, None, answering=False)
    needed = any(
        not lab.node(server.node).run for service in lab.services for server in service.real_servers
    )
    answering = not needed or processes.RESPONDER in processes.daemons(entry.lab)
    faults = tuple(map(str, injected.read(entry.lab)))
    return Listed(entry, lab, answering=answering, faults=faults)


def _configured(entry: Entry) -> Lab:
    """The lab that a registry entry was made from. Raises LabError, SpecError: it is damaged."""
    words = entry.overrides
    name, servers, scheduler = (words.get(key) for key in ("name", "servers", "scheduler"))
    damaged = LabError(f"the entry of lab {entry.lab} is damaged", hint=f"lvsctl down {entry.lab}")
    if not isinstance(name, str | None) or not isinstance(servers, int | None):
        raise damaged
    try:
        chosen = Scheduler(scheduler) if scheduler else None
    except ValueError:
        raise damaged from None
    text = entry.topology.encode(errors="surrogatepass")  # what is no text is no topology either
    lab = lab_of(Topology(entry.source, text), spec.Overrides(name, servers, chosen))
    if lab.name != entry.lab:
        raise damaged
    return lab


def running(name: str | None) -> Lab:
    """The running lab called ``name``; without a name, the only one there is.

    Raises LabError where it does not run or its entry is damaged, UsageError where
    there are several to choose from.
    """
    if name is None:
        names = [entry.lab for entry in registry.labs()]
        if not names:
            raise LabError("no lab is running", hint="start one: lvsctl up dr")
        if len(names) > 1:
            raise UsageError(
                f"{len(names)} labs are running: {', '.join(names)}", hint="say which one"
            )
        name = names[0]
    entry = registry.read(name)
    if entry is None:
        raise removing.not_running(name)
    if entry.state not in (State.UP, State.CHANGING):
        problem = entry.problem or f"it is {entry.state}, or the command that did so was killed"
        raise LabError(
            f"lab {name} is not usable: {problem}",
            hint=f"lvsctl down {name}, then lvsctl up again",
        )
    return _configured(entry)


def addressed(words: Sequence[str]) -> tuple[Lab, Sequence[str]]:
    """The running lab and the names of nodes that ``[LAB] [NODE]...`` mean.

    Where only one lab runs, its name may be left out before those of nodes.
    Raises what ``running`` raises.
    """
    if not words:
        return running(None), ()
    labs_there = [entry.lab for entry in registry.labs()]
    if len(labs_there) == 1 and words[0] not in labs_there:
        only = running(None)
        if any(node.name == words[0] for node in only.nodes):
            return only, words
    return running(words[0]), words[1:]


def node_of(lab: Lab, name: str) -> Node:
    """The node of ``lab`` called ``name``. Raises UsageError with the names there are."""
    try:
        return lab.node(name)
    except KeyError:
        names = ", ".join(node.name for node in lab.nodes)
        raise UsageError(f"lab {lab.name} has no node {name!r}", hint=f"it has: {names}") from None


# ── looking ──────────────────────────────────────────────────────────────────────────────────


def inspect(lab: Lab, nodes: Sequence[str] = ()) -> Inspection:
    """The state of some nodes of a running lab (all of them where none is named)."""
    from lvsctl.kernel import state

    wanted = [node_of(lab, name) for name in nodes] or list(lab.nodes)
    names = {lab.netns(node.name): node.name for node in wanted}
    states = state.lab_state(
        names,
        directors=[lab.netns(node.name) for node in wanted if node.role is Role.DIRECTOR],
        pids=processes.daemons(lab.name).values(),
    )
    faults = tuple(map(str, injected.read(lab.name)))
    return Inspection(lab, {names[netns]: found for netns, found in states.items()}, faults)


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


# ── proving ──────────────────────────────────────────────────────────────────────────────────


def verify(lab: Lab) -> Verification:
    """Send requests to every virtual service of a running lab and judge what comes of them."""
    from lvsctl import experiment

    return recomputed(experiment.evidence_of(lab))


def recomputed(evidence: Evidence) -> Verification:
    """What evidence says, a saved report's too: no kernel is asked."""
    from lvsctl import verify as judges

    return Verification(evidence.lab, tuple(judges.findings(evidence)), evidence)


def diagnose(lab: Lab) -> Diagnosis:
    """Why a running lab does not do what was promised: seen, not looked up."""
    from lvsctl import diagnosis, experiment

    entry = registry.read(lab.name)
    said = diagnosis.conclusion(experiment.evidence_of(lab), entry.source if entry else "")
    return Diagnosis(
        lab, said.causes, said.remarks, said.ruled_out, works=said.works, look_at=said.look_at
    )


def walk(lab: Lab, service: str | None = None, asking: str | None = None) -> Walk:
    """Send one request to a virtual service (the first) from a node (the first client).

    Raises UsageError with the names there are.
    """
    from lvsctl import experiment
    from lvsctl.verify import walk as walking

    client = lab.having(Role.CLIENT)[0] if asking is None else node_of(lab, asking)
    evidence = experiment.evidence_of_request(lab, service_of(lab, service), client)
    return next(walking.walks(evidence))


def service_of(lab: Lab, name: str | None) -> VirtualService:
    """The virtual service called ``name``, or the first. Raises UsageError."""
    for service in lab.services:
        if name in (None, service.name):
            return service
    names = ", ".join(service.name for service in lab.services)
    raise UsageError(f"lab {lab.name} has no service {name!r}", hint=f"it has: {names}")


def listening(lab: Lab, taps: Sequence[str] = (), expression: str = "") -> LiveCapture:
    """A capture at some taps of a running lab (at all where none is named), not yet begun.

    Raises UsageError where a tap's node is not in the lab.
    """
    from lvsctl.model.frame import Tap
    from lvsctl.observe.capture import LiveCapture
    from lvsctl.observe.listener import Options

    wanted = frozenset(map(Tap.parse, taps))
    for tap in sorted(wanted):
        if not tap.node:
            raise UsageError(f"{tap} is no tap", hint="a tap is NODE:DEVICE, as in director:lan")
        node_of(lab, tap.node)
    return LiveCapture(
        {lab.netns(node.name): node.name for node in lab.nodes},
        Options(filter=expression, taps=wanted),
    )


def watching(lab: Lab, *, interval: float = 1.0, probing: bool = False) -> Watcher:
    """A running lab to be looked at again and again; ends when it runs no more, or as another.

    Raises UsageError where its director has no IPVS to look at.
    """
    from lvsctl.watching.loop import Watcher

    entry = registry.read(lab.name)

    def still_there() -> bool:
        now = registry.read(lab.name)
        if now is None or entry is None or now.state not in (State.UP, State.CHANGING):
            return False
        made = attrgetter("started", "topology", "overrides")
        return bool(made(now) == made(entry))

    return Watcher(lab, interval=interval, probing=probing, still_there=still_there)


# ── breaking on purpose ──────────────────────────────────────────────────────────────────────


def _breaking(lab: Lab) -> Breaking:
    from lvsctl.breaking import Breaking

    return Breaking(lab, _responder)


def prove(lab: Lab, tell: Tell) -> Proof:
    """Break a running lab by each fault that applies to it, and see which claims fail."""
    from lvsctl import proving

    return proving.prove(_breaking(lab), tell)


def inject(lab: Lab, name: str, node: str | None = None) -> FaultShown:
    """Inject a fault into a running lab. Raises UsageError where it does not apply there."""
    from lvsctl.faults import fault

    if node is not None:
        node_of(lab, node)
    one = _breaking(lab).inject(fault(name), node)
    return fault_shown(lab, name, one.node)


def restore(lab: Lab, name: str | None = None, node: str | None = None) -> tuple[str, ...]:
    """Take back a fault, or all of them. Raises UsageError where it is not injected."""
    from lvsctl.faults import fault

    noted = injected.read(lab.name)
    if name is None:
        return tuple(map(str, _breaking(lab).restore()))
    fault(name)
    meant = [one for one in noted if one.fault == name and node in (None, one.node)]
    if not meant:
        there = ", ".join(map(str, noted)) or "no fault is"
        raise UsageError(f"{name} is not injected into lab {lab.name}", hint=f"injected: {there}")
    return tuple(map(str, _breaking(lab).restore(meant)))


def faults(lab: Lab | None = None) -> tuple[FaultListed, ...]:
    """Every fault; with a lab, where it can be injected and where it is."""
    from lvsctl.faults import FAULTS

    if lab is None:
        return tuple(map(FaultListed, FAULTS.values()))
    plan, noted = planner.plan_for(lab), injected.read(lab.name)
    return tuple(
        FaultListed(
            fault,
            fault.nodes(lab, plan),
            tuple(one.node for one in noted if one.fault == fault.id),
        )
        for fault in FAULTS.values()
    )


def fault_shown(lab: Lab | None, name: str, node: str | None = None) -> FaultShown:
    """What a fault does to a lab; without one, to the first shipped topology that it applies to.

    Raises UsageError where it does not apply.
    """
    from lvsctl.faults import fault
    from lvsctl.faults.change import reversed_

    one = fault(name)
    if lab is None:
        lab = _example(one)
    breaking = _breaking(lab)
    scene = breaking.scene(breaking.node_for(one, node))
    changes = one.changes_at(scene)
    return FaultShown(
        fault=one,
        lab=lab.name,
        node=scene.node.name,
        predicted=one.predicted(scene),
        commands=tuple(command for change in changes for command in change.commands()),
        remedy=tuple(c for change in reversed_(changes) for c in change.commands()),
    )


def _example(fault: Fault) -> Lab:
    for name in shipped.names():
        lab = lab_of(Topology(name, shipped.text_of(name).encode()))
        if fault.nodes(lab, planner.plan_for(lab)):
            return lab
    raise UsageError(f"no shipped topology can have {fault.id}")


def fault_names(names: Sequence[str]) -> tuple[str, ...]:
    """The same, once they are known to be faults. Raises UsageError."""
    from lvsctl.faults import fault

    return tuple(fault(name).id for name in names)


def matrix_topologies(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the shipped topologies that are named, or all. Raises UsageError."""
    there = shipped.names()
    for name in names:
        if name not in there:
            raise UsageError(f"no topology {name} ships", hint=f"these do: {', '.join(there)}")
    return tuple(dict.fromkeys(names or there))


def applying(topology: str, only: Sequence[str] = ()) -> tuple[str, ...]:
    """The faults (of ``only``, where any are named) that a shipped topology can have."""
    from lvsctl import matrix

    lab = lab_of(Topology(topology, shipped.text_of(topology).encode()))
    return tuple(fault.id for fault, _ in matrix.chosen(_breaking(lab), only))


def matrix_column(
    topology: str, only: Sequence[str] = (), tell: Callable[[Cell], None] = lambda _: None
) -> Column:
    """Put a shipped topology to the test, in a lab of its own that is gone afterwards.

    Raises LabError where a lab of that name runs already, and what ``up`` raises.
    """
    from lvsctl import matrix

    name = f"matrix-{topology}"
    if registry.read(name) is not None:
        raise LabError(f"lab {name} is there already", hint=f"lvsctl down {name}")
    made = up(Topology(topology, shipped.text_of(topology).encode()), spec.Overrides(name=name))
    try:
        return matrix.column(_breaking(made.lab), topology, tell, only)
    finally:
        down(name)


def ask(lab: Lab, index: int, count: int) -> tuple[Exchange, ...]:
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
