"""Change a running lab in place to match another topology; roll back if that fails."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from lvsctl.engine.labs import up_command
from lvsctl.engine.read_back import check_found
from lvsctl.engine.whole import whole_state
from lvsctl.errors import LabError, LvsctlError
from lvsctl.faults.injector import FaultInjector
from lvsctl.kernel import commands, netns, own_servers, paths, processes, registry, state, undo
from lvsctl.kernel.apply import apply_plan
from lvsctl.kernel.registry import Entry, State
from lvsctl.model.event import Emit, Notice, Restoring
from lvsctl.model.lab import Lab
from lvsctl.plan import commanded, diff
from lvsctl.plan.diff import Difference
from lvsctl.plan.stages import Left, Plan, Stage, Up
from lvsctl.resources.base import Resource
from lvsctl.resources.namespace import Namespace
from lvsctl.resources.offloads import OffloadsOff
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink
from lvsctl.traffic.responder import responder_of


@dataclass(frozen=True, slots=True)
class Form:
    """A lab before or after a change: the lab, its plan and its registry entry."""

    lab: Lab
    plan: Plan
    entry: Entry


def change(old: Form, new: Form, emit: Emit) -> Up:
    """Change the running lab from ``old`` to ``new``; the caller holds its lock.

    Raises LabError, before anything is changed, where that cannot be done while it runs. Where
    it fails or is interrupted later, the lab is made what it was; where that fails too, it is
    neither: the error says so, and so does the registry (State.CHANGING) until the next ``up``.
    """
    name = old.entry.lab
    owned = commanded.owned_by_keepalived(new.plan)
    obsolete = diff.obsolete(old.plan.resources, new.plan.resources)
    outdated = tuple(one for one in obsolete if not commanded.is_owned(one, owned))
    refuse_rewiring(name, old.plan, new.plan)
    undo.refuse(outdated, name)
    netns.name_again(name, old.plan.namespaces)
    restored = _unbroken(old.lab)
    memory = _remembered(old, new)
    try:
        done = _equalize(
            new, outdated, memory.commands, emit, lambda: registry.mark(old.entry, State.CHANGING)
        )
        registry.write(new.entry)
    except BaseException as error:
        _go_back(old, new, memory, error, emit)
        raise
    return Up(
        new.lab,
        created=False,
        added=tuple(dict.fromkeys(done.added)),
        # What was removed together with something larger is not listed separately.
        removed=tuple(diff.independent(one for one in done.removed if one not in done.added)),
        restored=restored,
        edited=tuple(done.edited),
        left=tuple(done.left),
    )


def repair(form: Form, emit: Emit) -> None:
    """Make a running lab what ``form`` says; the caller holds its lock. Raises as ``change``."""
    netns.name_again(form.entry.lab, form.plan.namespaces)
    _equalize(form, (), (), emit, lambda: registry.mark(form.entry, State.CHANGING))
    registry.write(form.entry)


PASSES = 3
"""How often a lab is compared and changed: what one change hides, the next comparison shows."""


@dataclass(slots=True)
class _Done:
    """What was changed until a lab was as its topology says, and what was left alone."""

    added: list[Resource] = field(default_factory=list)
    removed: list[Resource] = field(default_factory=list)
    edited: list[Resource] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)


def _equalize(
    form: Form,
    outdated: Iterable[Resource],
    starting: Collection[str],
    emit: Emit,
    begin: Callable[[], object],
) -> _Done:
    """Undo ``outdated`` and apply what ``form`` still needs, until nothing differs.

    ``starting`` are the namespaces whose commands, the user's own, do not run yet. ``begin`` is
    called before the first effect, if there is any. Raises KernelError where the kernel still
    lacks something of the plan in the end, on a node without a command of the user's own.
    """
    name = form.entry.lab
    gone = {op.netns for op in outdated} - set(netns.existing(name, {o.netns for o in outdated}))
    there = tuple(o for o in outdated if o.netns not in gone or isinstance(o, Namespace))
    if there:
        begin()
        undo.undo(there, name, emit)
    done = _Done(removed=list(there))
    for _ in range(PASSES):
        states = whole_state(form.lab, form.plan)
        idle = own_servers.to_restart(form.lab, states).union(starting)
        found = diff.diff(form.plan, states, idle)
        done.left = list(found.left)
        if not found:
            return done
        begin()
        _once(form, found, idle, emit)
        done.added += (op for stage in found.missing for op in stage.resources)
        done.removed += found.extra
        done.edited += found.edited
        starting = ()
    states = whole_state(form.lab, form.plan)
    check_found(form.lab, form.plan, states)
    rest = diff.diff(form.plan, states)
    done.left = [*rest.left, *map(_could_not, rest.extra)]
    return done


def _once(form: Form, found: Difference, starting: Collection[str], emit: Emit) -> None:
    """Undo and apply what was found."""
    name = form.entry.lab
    undo.undo(found.extra, name, emit)
    if found.missing:
        own_servers.end_replaced(form.lab, starting)
        respond = responder_of(form.lab)
        apply_plan(
            commanded.without_owned(found.missing), name, emit, respond=respond, reconciling=True
        )
        commands.wait_for_servers(form.lab, emit)


def _could_not(one: Resource) -> Left:
    command = next(iter(one.undo_commands()), None)
    what = "; ".join(one.describe())
    return Left(one.netns, f"{what}: it is still there", str(command) if command else "")


# ── back ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Memory:
    """What the rollback needs and no plan contains.

    ``settings``: those that are to be set anew, as they are. ``commands``: the namespaces that
    get a command of the user's own, and ``pids_in`` the pids of who lives there already.
    """

    settings: tuple[Sysctl, ...]
    commands: frozenset[str]
    pids_in: frozenset[int]


def _remembered(old: Form, new: Form) -> _Memory:
    name = old.entry.lab
    added = diff.obsolete(new.plan.resources, old.plan.resources)
    staying = netns.existing(name, set(old.plan.namespaces))
    fresh = [op for op in added if isinstance(op, Sysctl) and op.netns in staying]
    states = state.lab_state(
        {op.netns for op in fresh}, sysctls=dict.fromkeys(op.name for op in fresh)
    )
    settings = tuple(
        replace(op, value=states[op.netns].sysctls[op.name])
        for op in fresh
        if op.name in states[op.netns].sysctls
    )
    starting = frozenset(op.netns for op in added if isinstance(op, UserCommand))
    return _Memory(settings, starting, _inhabitants(name, starting))


def _inhabitants(lab: str, names: Iterable[str]) -> frozenset[int]:
    return frozenset(processes.pids_in(paths.of(lab).namespaces / name for name in names))


def _go_back(old: Form, new: Form, memory: _Memory, error: BaseException, emit: Emit) -> None:
    """Roll the lab back unless nothing or everything was done; adds the result to ``error``."""
    name = old.entry.lab
    now = registry.read(name)
    if now is None or now.state is not State.CHANGING:
        return
    anew = f"`{up_command(new.entry)}` creates it again, `lvsctl down {name}` removes it"
    if old.plan == new.plan:
        said = f"lab {name}, which was incomplete, is still incomplete: {anew}"
    else:
        emit(Restoring(name))
        said = f"lab {name} was rolled back"
        try:
            _undo_change(old, new, memory, emit)
        except LvsctlError as another:
            said = (
                f"lab {name} could not be rolled back: {another.message}\n"
                f"It matches neither its old nor its new topology: {anew}"
            )
    if isinstance(error, LvsctlError):
        error.add(said)
    else:
        emit(Notice(said))


def _undo_change(old: Form, new: Form, memory: _Memory, emit: Emit) -> None:
    name, staying = old.entry.lab, set(old.plan.namespaces)
    kept = memory.pids_in | processes.ancestors()
    processes.terminate(lambda: _inhabitants(name, memory.commands) - kept)
    added = diff.obsolete(new.plan.resources, old.plan.resources)
    outdated = [
        op for op in added if not (isinstance(op, (Sysctl, UserCommand)) and op.netns in staying)
    ]
    _equalize(old, outdated, (), emit, lambda: None)
    # No state shows whether other settings differ, or offloads are on again.
    untold = (*memory.settings, *(op for op in old.plan.resources if isinstance(op, OffloadsOff)))
    apply_plan((Stage("as it was", untold),), name, emit, reconciling=True)
    registry.write(old.entry)


# ── before ───────────────────────────────────────────────────────────────────────────────────


def _unbroken(lab: Lab) -> tuple[str, ...]:
    """Restore the faults that are injected into the lab; the caller holds its lock.

    Where one cannot be taken back, because its node was removed by hand, it is forgotten:
    what the plan speaks of is made so anyway.
    """
    noted = paths.read_faults(lab.name)
    if noted:
        try:
            FaultInjector(lab).restore_held()
        except LvsctlError:
            paths.write_faults(lab.name, ())
    return tuple(map(str, noted))


def refuse_rewiring(lab: str, before: Plan, after: Plan) -> None:
    """Reject changes to the interfaces of a node that stays: processes use them."""
    cables = {(op.node_netns, op.device): op for op in before.resources if isinstance(op, VethLink)}
    kept = {op.netns for op in before.resources if isinstance(op, Namespace)}
    changed: list[str] = []
    for op in after.resources:
        if not isinstance(op, VethLink) or op.node_netns not in kept:
            continue
        old = cables.get((op.node_netns, op.device))
        if old is None:
            changed.append(f"{op.port} would be connected to {op.device}")
        elif old.mac != op.mac:
            changed.append(f"{op.port} would get another first address on {op.device}")
    gone = cables.keys() - {
        (o.node_netns, o.device) for o in after.resources if isinstance(o, VethLink)
    }
    staying = {op.netns for op in after.resources if isinstance(op, Namespace)}
    changed += [
        f"{cables[key].port} would be disconnected from {key[1]}"
        for key in sorted(gone)
        if key[0] in staying
    ]
    if changed:
        raise LabError(
            f"lab {lab} is running and cannot be changed to this topology in place:\n  "
            + "\n  ".join(changed),
            hint=f"lvsctl down {lab}, then up again",
        )
