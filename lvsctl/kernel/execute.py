"""Carrying out a plan: operations in, a running lab out.

Stage by stage, and within a stage namespace by namespace, in a thread of its own
that may change namespace (in two of them where there are many: ``perform``).
Netlink messages of a namespace are collected and go out in one send (``wire``);
anything else (a sysctl, an ioctl) first sends what is waiting, so that the order
within a namespace holds.

Whatever fails raises; the caller lets go of the whole lab (``registry.remove``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from threading import Event

from lvsctl.errors import LabError
from lvsctl.kernel import commands, links, netns, processes, wire
from lvsctl.kernel.ahead import Ahead
from lvsctl.kernel.perform import Performance
from lvsctl.kernel.session import Session
from lvsctl.kernel.worker import in_worker
from lvsctl.model.event import Emit, Notice, OpsDone, StageBegun
from lvsctl.resources.ops import AddLink, AddNamespace, Listen, Op, Plan, RunCommand, Stage

Respond = Callable[[tuple[Listen, ...], processes.Ready], None]
"""The real servers' responder: serves until killed; calls Ready once its sockets listen."""

PROCESSES = (Listen, RunCommand)
"""Operations that start processes, in this one's main thread."""

OPERATIONAL_SECONDS = 5.0
"""How long a cable may take to come up before the user is told."""


def execute(
    plan: Plan | Sequence[Stage],
    lab: str,
    emit: Emit,
    *,
    respond: Respond | None = None,
    converging: bool = False,
    ahead: Ahead | None = None,
) -> None:
    """Perform every operation of ``plan`` for ``lab``, whose registry entry exists.

    ``respond`` serves the Listen operations, all of them in one daemon that replaces
    an earlier one: they are always the complete set. ``converging``: the lab runs,
    so that what is there already is no error and services are changed in place. ``ahead`` has
    the first of the new namespaces.

    Raises KernelError for what the kernel refuses, HostError and LabError. On any
    exception, KeyboardInterrupt included, no thread and no descriptor of its own stays.
    """
    stages = plan.stages if isinstance(plan, Plan) else tuple(plan)
    ops = [op for stage in stages for op in stage.ops]
    made = [op.netns for op in ops if isinstance(op, AddNamespace)]
    if made:
        netns.check_free(lab, made)
        netns.mount_store(lab)
    with ExitStack() as held:
        if ahead:
            ahead.stop()
        session = held.enter_context(Session(lab, ahead))
        session.make_room(len({op.netns for op in ops}))
        performance = Performance(session, converging)
        responders: list[processes.Beginning] = []
        for together in _until_processes_start(stages):
            _carry_out(performance, together, len(stages), emit)
            responders += _start_processes(lab, together[-1][1].ops, respond, emit, held)
        cables = [op for op in ops if isinstance(op, AddLink)]
        if cables:
            performance.finish()
            in_worker(lambda say, _: _wait_for(session, cables, say), emit)
        for responder in responders:  # which got ready while the cables came up
            responder.ready()


def _until_processes_start(stages: Sequence[Stage]) -> Iterator[list[tuple[int, Stage]]]:
    """The stages with their numbers, from 1; those together of which only the last has processes.

    One thread carries them out, because starting one for each takes as long as a small stage.
    """
    together: list[tuple[int, Stage]] = []
    for number, stage in enumerate(stages, 1):
        together.append((number, stage))
        if number == len(stages) or any(isinstance(op, PROCESSES) for op in stage.ops):
            yield together
            together = []


def _carry_out(
    performance: Performance, together: Sequence[tuple[int, Stage]], count: int, emit: Emit
) -> None:
    """What the kernel does of these stages; before processes start, all of what came before.

    ``count`` is how many stages there are in all.
    """

    def work(say: Emit, stop: Event) -> None:
        following = [*(stage.ops for _, stage in together[1:]), ()]
        for (number, stage), then in zip(together, following, strict=True):
            say(StageBegun(stage.title, number, count, len(stage.ops)))
            mine = [op for op in stage.ops if not isinstance(op, PROCESSES)]
            performance.perform(mine, say, stop, then)
            if stop.is_set():
                return
        if len(mine) < len(stage.ops):
            performance.finish()

    in_worker(work, emit)


def _start_processes(
    lab: str, ops: Iterable[Op], respond: Respond | None, emit: Emit, held: ExitStack
) -> list[processes.Beginning]:
    """What processes do of a stage; the responder on its way, if there is to be one.

    They are forked off here, where no other thread runs.
    """
    beginning: list[processes.Beginning] = []
    listens = tuple(op for op in ops if isinstance(op, Listen))
    runs = [op for op in ops if isinstance(op, RunCommand)]
    if listens:
        if respond is None:
            raise LabError(f"lab {lab}: nothing was given that could respond on port "
                           f"{listens[0].port}")  # fmt: skip
        processes.stop_daemon(lab, processes.RESPONDER)
        responder = processes.Beginning(
            lab, processes.RESPONDER, lambda ready: respond(listens, ready)
        )
        beginning.append(held.enter_context(responder))
    if runs:
        commands.start_commands(lab, runs)
    if listens or runs:
        emit(OpsDone(len(listens) + len(runs)))
    return beginning


def _wait_for(session: Session, cables: Iterable[AddLink], say: Emit) -> None:
    """Wait until frames pass through ``cables``: else the first ones are lost."""
    ports: dict[str, dict[int, str]] = {}
    for cable in cables:
        ports.setdefault(cable.netns, {})[cable.port_index] = cable.port
    for name, wanted in ports.items():
        with netns.enter(session.open(name).fd), wire.open_socket() as sock:
            down = links.wait_operational(sock, set(wanted), OPERATIONAL_SECONDS)
        if down:
            names = ", ".join(wanted[index] for index in sorted(down)[:5])
            say(Notice(f"{name}: {names} did not come up within {OPERATIONAL_SECONDS:g} s"))
