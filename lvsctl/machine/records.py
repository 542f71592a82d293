"""The record of a machine's processes, and how these are ended if the machine does not end itself.

A process is identified by its id and its start time: an id alone may belong to a later process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

WORK_PREFIX = "lvsctl-machine-"
"""The prefix of work directories; no other directory is ever removed."""

KILL_TIMEOUT = 5.0
"""Seconds for killed processes to end."""


class Process(NamedTuple):
    """A process: its id, and its start in clock ticks since boot. 0, 0: none."""

    pid: int
    started: int


NO_PROCESS = Process(0, 0)


class Record(NamedTuple):
    """A machine's processes and work directory: enough to kill it and remove its files.

    ``boot`` is the host's boot id. ``pid`` and ``started`` are those of the kernel's process,
    which has a session of its own (0 before it has started). ``work`` is its work directory.
    """

    boot: str
    pid: int
    started: int
    work: str
    broker: Process = NO_PROCESS
    supervisor: Process = NO_PROCESS


def write(file: Path, record: Record) -> None:
    """Write a record atomically. Raises OSError, and then leaves nothing behind."""
    draft = file.with_suffix(".new")
    try:
        draft.write_text(json.dumps(record._asdict()), encoding="utf-8")
        draft.rename(file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def read(file: Path) -> Record | None:
    """Return a record; None if it is missing or damaged."""
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        return Record(
            boot=str(fields["boot"]),
            pid=int(fields["pid"]),
            started=int(fields["started"]),
            work=str(fields["work"]),
            broker=_process(fields.get("broker", NO_PROCESS)),
            supervisor=_process(fields.get("supervisor", NO_PROCESS)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _process(fields: object) -> Process:
    if not isinstance(fields, list | tuple):
        raise TypeError("not a process")
    pid, started = fields
    return Process(int(pid), int(started))


def boot_id() -> str:
    """Return the id of the host's boot: process ids are valid only within one boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_time(pid: int) -> int | None:
    """Return a process's start in clock ticks since boot; None if it does not exist."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else None


def process(pid: int) -> Process:
    """Return the process with this id."""
    return Process(pid, start_time(pid) or 0)


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (the state) on; empty if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def is_member(record: Record, pid: int) -> bool:
    """Return whether a process belongs to a machine's kernel and lives."""
    fields = _stat_fields(pid)
    # The id of the session (6th) can be reused: an older process is not the machine's.
    return bool(
        fields
        and fields[0] not in "ZX"
        and record.pid > 0
        and int(fields[3]) == record.pid
        and int(fields[19]) >= record.started
    )


def members(record: Record) -> list[int]:
    """Return the ids of the living processes of a machine's kernel."""
    if record.boot != boot_id() or record.pid <= 0:
        return []
    entries = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [int(name) for name in entries if is_member(record, int(name))]


def end_kernel(record: Record) -> None:
    """Kill the processes of a machine's kernel, and wait for their end."""
    deadline = time.monotonic() + KILL_TIMEOUT
    # Repeated, because a process can fork while its session is listed.
    while (living := members(record)) and time.monotonic() < deadline:
        for pid in living:
            _signal(pid, signal.SIGKILL, lambda pid: is_member(record, pid), deadline)


def end_background(record: Record, number: signal.Signals) -> None:
    """Send a signal to the broker, and SIGKILL to the supervisor too if it is that."""
    if record.boot != boot_id():
        return
    deadline = time.monotonic() + KILL_TIMEOUT
    # The supervisor first: it would otherwise clean up at the same time.
    chosen = [record.supervisor] if number == signal.SIGKILL else []
    for one in (*chosen, record.broker):
        if one.pid > 0:
            _signal(one.pid, number, lambda pid, one=one: process(pid) == one, deadline)  # type: ignore[misc]


def _signal(
    pid: int, number: signal.Signals, still: Callable[[int], bool], deadline: float
) -> None:
    """Send a signal to the process that ``still`` recognizes; after SIGKILL, wait for its end.

    It is looked at again when the descriptor is open: its id may have been reused before.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        fd = os.pidfd_open(pid)
        try:
            if still(pid):
                signal.pidfd_send_signal(fd, number)
                if number == signal.SIGKILL:
                    select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(fd)


def remove_work(work: str) -> None:
    """Remove a work directory; any other path is ignored."""
    path = Path(work)
    if path.name.startswith(WORK_PREFIX) and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
