"""The broker's parent: waits for its end, then removes what is left of the machine."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from lvsctl import linux
from lvsctl.machine import runtime_files
from lvsctl.machine.runtime_files import RuntimeFiles

POWER_OFF_TIMEOUT = 3.0
"""Seconds for the guest of a killed broker to power off, which it does when its link closes."""


def guard(files: RuntimeFiles, life_lock: int, report: int) -> None:
    """Fork: return in the child (the broker); in the parent, wait for it and clean up.

    Both hold the life lock. The kernel is the broker's child, and becomes the supervisor's if the
    broker dies.
    """
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    supervisor = os.getpid()
    broker = os.fork()
    if broker == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        # If the supervisor dies, the broker stops the machine.
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:
            raise SystemExit(1)
        return
    os.close(report)
    # The broker handles signals that ask to stop.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: _forward(broker, received))
    os.waitpid(broker, 0)
    _clean_up(files)
    os.close(life_lock)
    os._exit(0)


def _forward(broker: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(broker, number)


def _clean_up(files: RuntimeFiles) -> None:
    record = runtime_files.read_record(files)
    if record is not None:
        _wait_for_power_off(record)
    runtime_files.sweep(files)
    # Last, while it is still held: a process that has opened it meanwhile tries again.
    files.lock.unlink(missing_ok=True)


def _wait_for_power_off(record: runtime_files.Record) -> None:
    """Reap the kernel, which is the supervisor's child by now, until it has ended or time is up."""
    deadline = time.monotonic() + POWER_OFF_TIMEOUT
    while runtime_files.members(record):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return
        signal.sigtimedwait({signal.SIGCHLD}, min(remaining, 0.1))
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
