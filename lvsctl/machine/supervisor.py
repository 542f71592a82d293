"""The broker's parent: waits for its end, then leaves nothing of the machine behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from lvsctl import linux
from lvsctl.machine import runtime_files
from lvsctl.machine.runtime_files import RuntimeFiles

GRACE = 3.0
"""Seconds for a guest whose broker was killed: its line has ended, so it powers off."""


def guard(files: RuntimeFiles, life_lock: int, report: int) -> None:
    """Fork; return in the child (the broker), stay in the parent and clean up after it.

    Both hold the life lock. The kernel is the broker's child and becomes the shepherd's when the
    broker dies.
    """
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    shepherd = os.getpid()
    broker = os.fork()
    if broker == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        # Without shepherd no machine: the broker ends it in good order.
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != shepherd:
            raise SystemExit(1)
        return
    os.close(report)
    # A stop is the broker's business; a stray signal to the shepherd is passed on to it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: _pass_on(broker, received))
    os.waitpid(broker, 0)
    _clean_up(files)
    os.close(life_lock)
    os._exit(0)


def _pass_on(broker: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(broker, number)


def _clean_up(files: RuntimeFiles) -> None:
    record = runtime_files.read_record(files)
    if record is not None:
        _wait_for_power_off(record)
    runtime_files.sweep(files)
    # Last, and while it is still held: whoever opened it in between tries again.
    files.lock.unlink(missing_ok=True)


def _wait_for_power_off(record: runtime_files.Record) -> None:
    """Reap the kernel, the shepherd's own child by now, until none of it is left or time is up."""
    deadline = time.monotonic() + GRACE
    while runtime_files.members(record):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return
        signal.sigtimedwait({signal.SIGCHLD}, min(remaining, 0.1))
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
