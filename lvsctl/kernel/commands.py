"""The users' own commands on nodes (``run:`` in a topology)."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
from collections.abc import Sequence

from lvsctl.errors import KernelError, LvsctlError
from lvsctl.kernel import netns, paths, processes
from lvsctl.ops import RunCommand

NOT_FOUND = 127
"""The exit status of a command that does not exist, as in sh(1)."""


def start_commands(lab: str, ops: Sequence[RunCommand]) -> None:
    """Start each command in its node's namespace, all at once, and leave them running.

    What they print goes to the lab's log of that node. A command may put itself
    into the background (nginx does): ending with status 0 is no failure.
    Raises KernelError, with the end of the log, where one fails within the grace time.
    """
    paths.logs(lab).mkdir(parents=True, exist_ok=True)
    watchers = {_start(lab, op): op for op in ops}
    failures: list[KernelError] = []
    for watcher, op in watchers.items():
        _, status = os.waitpid(watcher, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            failures.append(_failure(lab, op, code))
    if failures:
        raise failures[0]


def _failure(lab: str, op: RunCommand, code: int) -> KernelError:
    how = "no such command" if code == NOT_FOUND else f"ended at once with status {code}"
    return KernelError(
        f"{op.node}: {op.argv[0]}: {how}{processes.last_lines(lab, op.node)}",
        node=op.node,
        command="; ".join(op.describe()),
        hint=f"its output is in {paths.logs(lab) / op.node}.log while the lab exists; try it"
        f" with `lvsctl exec` first",
    )


def _start(lab: str, op: RunCommand) -> int:
    """Fork the process that starts the command and watches its first moments; its pid.

    It ends with the command's exit status, or with 0 where that goes on running.
    """
    watcher = os.fork()
    if watcher:
        return watcher
    status = 1
    try:
        os.setsid()
        reading, writing = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            _become(lab, op, writing)
        os.close(writing)
        status = _first_moments(child, reading)
    finally:
        os._exit(status)


def _first_moments(child: int, begun: int) -> int:
    """The exit status of ``child`` where it ends within the grace time; else 0.

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


def _become(lab: str, op: RunCommand, begun: int) -> None:
    """In the child: turn into the command, which closes ``begun``, or end."""
    status = 1
    try:
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(sign, signal.SIG_DFL)
        processes.redirect(paths.logs(lab) / f"{op.node}.log")
        os.closerange(3, begun)
        os.closerange(begun + 1, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        program = shutil.which(op.argv[0])
        if program is None:
            status = NOT_FOUND
            return
        netns.become(paths.namespaces(lab) / op.netns)
        os.execv(program, op.argv)  # noqa: S606
    except (LvsctlError, OSError) as error:
        with contextlib.suppress(OSError):
            os.write(2, f"{op.argv[0]}: {error}\n".encode())
    finally:
        os._exit(status)
