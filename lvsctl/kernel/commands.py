"""The users' own commands on nodes (``run:`` in a topology)."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Iterable, Sequence

from lvsctl.errors import HostError, KernelError, LvsctlError
from lvsctl.kernel import masters, netns, parts, paths, processes, worker
from lvsctl.kernel.own_servers import note, own_servers
from lvsctl.kernel.paths import wrap_os_errors
from lvsctl.model.event import Emit, Notice
from lvsctl.model.lab import Lab, Node
from lvsctl.resources.base import Resource
from lvsctl.resources.keepalived import PROCESS, Keepalived
from lvsctl.resources.user_command import UserCommand

NOT_FOUND = 127
"""The exit status of a command that does not exist, as in sh(1)."""

NO_COMMAND = "no such command"

SHELL = ("/bin/sh", "-c")
"""How a `run:` that is one string is run."""

LISTEN_SECONDS = 10.0
"""How long a real server of the user's own may take to listen, before the user gets a notice."""


def start_commands(lab: str, ops: Sequence[UserCommand | Keepalived]) -> None:
    """Start each command in its node's namespace, all at once, and leave them running.

    What they print goes to the lab's log of that node. A command may put itself
    into the background (nginx does): ending with status 0 is no failure.
    Raises KernelError, with the end of the log, where one fails within the grace time.
    """
    for op in ops:
        if isinstance(op, Keepalived):  # a part of it may have survived the rest
            end_keepalived(lab, op.netns)
    with wrap_os_errors(f"keep the logs of lab {lab}"):
        paths.of(lab).logs.mkdir(parents=True, exist_ok=True)
    watchers = {_start(lab, op): op for op in ops}
    failures: list[KernelError] = []
    for watcher, op in watchers.items():
        _, status = os.waitpid(watcher, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            failures.append(_failure(lab, op, code))
    if failures:
        raise failures[0]


def check_programs(resources: Iterable[Resource]) -> None:
    """Raise HostError where directors of a new lab run keepalived, and this host has none.

    A `run:` may name what is no program, such as a builtin of its shell: only keepalived is sought.
    """
    for one in resources:
        if isinstance(one, Keepalived) and shutil.which(PROCESS) is None:
            hint = netns.not_found_hint(PROCESS)
            raise HostError(f"{one.node}: {PROCESS}: command not found", hint=hint)


def keepalived_pids(lab: str, netns_name: str) -> list[int]:
    """Return the processes of keepalived in a namespace, the first one first."""
    pids = processes.pids_in([paths.of(lab).namespaces / netns_name])
    return sorted(pid for pid in pids if processes.name_and_state(pid)[0] == PROCESS)


def end_keepalived(lab: str, netns_name: str) -> None:
    """End keepalived, which removes its addresses and virtual services first."""
    processes.terminate(lambda: keepalived_pids(lab, netns_name))


def _failure(lab: str, op: UserCommand | Keepalived, code: int) -> KernelError:
    how = NO_COMMAND if code == NOT_FOUND else f"ended at once with status {code}"
    if isinstance(op, Keepalived):
        missing = ": not found" in processes.last_lines(lab, op.node)
        return _refusal(lab, op.node, (PROCESS,), NO_COMMAND if missing else how)
    return _refusal(lab, op.node, op.argv, how)


_NOT_FOUND = re.compile(r"([^\s:]+): (?:command )?not found$", re.MULTILINE)
"""What a shell says of a program that does not exist: ``sh: 1: exec: haproxy: not found``."""


def _refusal(lab: str, node: str, argv: Sequence[str], how: str) -> KernelError:
    command = argv[2] if tuple(argv[:2]) == SHELL else shlex.join(argv)
    lines = processes.last_lines(lab, node)
    missing = ""
    if said := _NOT_FOUND.search(lines):
        missing = said[1]
    elif NO_COMMAND in how:
        missing = command.split()[0]
    return KernelError(
        f"{node}: {command}: {how}{lines}",
        node=node,
        command=command,
        hint=netns.not_found_hint(missing)
        if missing
        else "to try it by hand: bring the lab up without that `run:`, "
        f"then `lvsctl exec {lab}/{node} -- {command}`",
    )


# ── commands that are real servers ───────────────────────────────────────────────────────────


def wait_for_servers(lab: Lab, emit: Emit) -> None:
    """Wait until the users' own real servers listen; emit a notice for those that take too long.

    Raises KernelError, with the end of the log, where one ends without having listened.
    """
    deadline = time.monotonic() + LISTEN_SECONDS
    pause = threading.Event()  # never set: the kernel has no event for this
    servers = list(own_servers(lab))
    waiting = servers
    while waiting := [server for server in waiting if not server.listens()]:
        for server in waiting:
            if not server.lives(lab.name) and not server.listens():
                how = f"ended without listening on {server.ports}"
                raise _refusal(lab.name, server.node.name, server.node.run, how)
        if time.monotonic() > deadline:
            for server in waiting:
                emit(Notice(f"{server.node.name}: nothing listens on {server.ports} yet"))
            break
        pause.wait(0.02)
    if servers:
        note(lab.name, [server for server in servers if server not in waiting])
    _wait_for_keepalived(lab, emit)


def _wait_for_keepalived(lab: Lab, emit: Emit) -> None:
    """Wait until keepalived has set up every virtual service on its directors, and the VIPs.

    Emits a notice for what takes too long. Raises KernelError, with the end of the log, where
    keepalived ends without having done so.
    """
    deadline = time.monotonic() + LISTEN_SECONDS
    pause = threading.Event()  # never set
    for node in lab.directors:
        owned = node.runs_keepalived or node.ha is not None
        while owned and (missing := _not_set_up(lab, node)):
            if not processes.pids_in([paths.of(lab.name).namespaces / lab.netns(node.name)]):
                argv = node.run or (PROCESS,)
                raise _refusal(lab.name, node.name, argv, "ended without its virtual services")
            if time.monotonic() > deadline:
                names = ", ".join(sorted(missing))
                emit(Notice(f"{node.name}: keepalived has not set up {names} yet"))
                break
            pause.wait(0.05)
    _wait_for_master(lab, emit)


def _not_set_up(lab: Lab, director: Node) -> set[str]:
    """Return the virtual services and VIPs that a director does not have.

    Of several directors, one has the VIPs: the master.
    """
    name = lab.netns(director.name)
    state = parts.read_states({name: parts.Wanted(ipvs=True)})[name]
    services = {service.match for service in lab.services} - {one.match for one in state.services}
    held = {address.ip for link in state.links for address in link.addresses}
    wanted = {vip for service in lab.services for vip in service.vips}
    vips = wanted - held if director.ha is None else set()
    return {*map(str, services), *map(str, vips)}


def _wait_for_master(lab: Lab, emit: Emit) -> None:
    """Wait until one of several directors is master; emit a notice if that takes too long."""
    found = masters.wait_for_master(lab, masters.takeover_seconds(lab))
    for address, names in found.items():
        if len(names) != 1:
            who = " and ".join(names) + " both hold" if names else "no director holds"
            emit(Notice(f"{who} {address}: `lvsctl verify {lab.name}` shows more"))


# ── starting ─────────────────────────────────────────────────────────────────────────────────


def _start(lab: str, op: UserCommand | Keepalived) -> int:
    """Fork the process that starts the command and waits for an early end; return its pid.

    It ends with the command's exit status, or with 0 where that goes on running.
    """
    watcher = worker.fork()
    if watcher:
        return watcher
    status = 1
    try:
        os.setsid()
        reading, writing = os.pipe2(os.O_CLOEXEC)
        child = worker.fork()
        if child == 0:
            _become(lab, op, writing)
        os.close(writing)
        status = _first_moments(child, reading)
    finally:
        os._exit(status)


def _first_moments(child: int, begun: int) -> int:
    """Return the exit status of ``child`` where it ends within the grace time; else 0.

    That time begins when the pipe ``begun`` is closed: with execve(2), however slow
    the machine is.
    """
    _wait_for(begun, processes.START_SECONDS)
    if not _wait_for(os.pidfd_open(child), processes.GRACE_SECONDS):
        return 0
    _, status = os.waitpid(child, 0)
    return abs(os.waitstatus_to_exitcode(status)) & 0xFF


def _wait_for(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _become(lab: str, op: UserCommand | Keepalived, begun: int) -> None:
    """In the child: turn into the command, which closes ``begun``, or end."""
    status = 1
    try:
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(sign, signal.SIG_DFL)
        processes.redirect(paths.of(lab).logs / f"{op.node}.log")
        os.closerange(3, begun)
        os.closerange(begun + 1, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        program = shutil.which(op.argv[0])
        if program is None:
            status = NOT_FOUND
            return
        netns.become(paths.of(lab).namespaces / op.netns, op.node)
        os.execv(program, op.argv)  # noqa: S606
    except (LvsctlError, OSError) as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{op.argv[0]}: {error}\n".encode())
    finally:
        os._exit(status)
