"""A machine's socket, locks and record, and how the remains of a killed machine are removed.

In the user's runtime directory, for a machine called NAME:

* ``NAME.starting``: locked (flock) by the command that starts the machine, until it is ready;
* ``NAME.lock``: locked (flock) by the supervisor and the broker as long as either lives;
* ``NAME.sock``: the socket for clients, created when the machine is ready;
* ``NAME.json``: the record of what to kill and remove if both of them are killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lvsctl.errors import HostError, UsageError

WORK_PREFIX = "lvsctl-machine-"
"""The prefix of work directories; no other directory is ever removed."""

END_TIMEOUT = 15.0
"""Seconds for a machine to stop by itself before its processes are killed."""

KILL_TIMEOUT = 5.0
"""Seconds for killed processes to end."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_POLL = 0.02


class RuntimeFiles(NamedTuple):
    """The files of one machine."""

    directory: Path
    name: str

    @property
    def lock(self) -> Path:
        return self.directory / f"{self.name}.lock"

    @property
    def starting(self) -> Path:
        return self.directory / f"{self.name}.starting"

    @property
    def socket(self) -> Path:
        return self.directory / f"{self.name}.sock"

    @property
    def record(self) -> Path:
        return self.directory / f"{self.name}.json"


class Record(NamedTuple):
    """A machine's process and work directory: enough to kill it and remove its files.

    ``boot`` is the host's boot id. ``pid`` is the kernel's process, which has a session of its
    own. ``started`` is its start time in clock ticks since boot, which distinguishes it from a
    later process with the same id. ``work`` is its work directory.
    """

    boot: str
    pid: int
    started: int
    work: str


def machine_name() -> str:
    """Return the machine's name (LVSCTL_MACHINE). Raises UsageError if it is malformed."""
    name = os.environ.get("LVSCTL_MACHINE") or "default"
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"LVSCTL_MACHINE={name!r} is not a valid name",
            hint="up to 32 letters, digits, '_', '.' and '-'",
        )
    return name


def for_machine(name: str | None = None) -> RuntimeFiles:
    """Return the files of a machine, in a directory that only this user can access.

    Raises HostError if there is no such directory, and UsageError for a malformed name.
    """
    return RuntimeFiles(_runtime_directory(), name or machine_name())


def _runtime_directory() -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    # After sudo or su the variable may still name another user's directory.
    base = Path(given)
    own = base.is_absolute() and _is_own_directory(base)
    # In /tmp another user could have created it, hence the checks below.
    shared = Path(f"/tmp/lvsctl-{os.geteuid()}")  # noqa: S108
    directory = base / "lvsctl" if own else shared
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise HostError(
            f"cannot create {directory}: {error.strerror}",
            hint="set XDG_RUNTIME_DIR to a directory that you own",
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise HostError(
            f"{directory} is not a directory that only you can access: it is not safe to use",
            hint=f"remove it, or chmod 700 {directory}, or set XDG_RUNTIME_DIR",
        )
    if len(os.fsencode(directory)) > 60:  # with the name it must fit into sockaddr_un
        raise HostError(
            f"{directory} is too long for the path of a socket",
            hint="set XDG_RUNTIME_DIR to a directory with a shorter name",
        )
    return directory


def _is_own_directory(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:  # missing, or in a directory of another user
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


@contextlib.contextmanager
def starting(files: RuntimeFiles) -> Iterator[None]:
    """Hold the lock for starting this machine; other commands wait. Raises HostError."""
    while True:
        fd = _opened(files.starting)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _is_same_file(fd, files.starting):
            break
        os.close(fd)  # its last holder removed it while we were waiting
    try:
        yield
    finally:
        files.starting.unlink(missing_ok=True)
        os.close(fd)


def take_life_lock(files: RuntimeFiles, timeout: float) -> int | None:
    """Return the machine's lock as a file descriptor, or None if a machine holds it.

    Waits up to ``timeout`` seconds for a machine to end. Raises HostError if the directory
    cannot be written.
    """
    deadline = time.monotonic() + timeout
    while True:
        fd = _opened(files.lock)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            if time.monotonic() >= deadline:
                return None
            select.select([], [], [], _POLL)  # flock has no timeout
            continue
        if _is_same_file(fd, files.lock):
            return fd
        os.close(fd)  # its last holder removed it while we were waiting


def _opened(lock: Path) -> int:
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(
            f"cannot write to {lock.parent}: {error.strerror}",
            hint="set XDG_RUNTIME_DIR to a directory that you can write",
        ) from error


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def sweep(files: RuntimeFiles) -> None:
    """Kill and remove what a machine has left behind. The caller holds its life lock."""
    record = read_record(files)
    if record is not None:
        end_kernel(record)
        remove_work(record.work)
    for path in (files.socket, files.record):
        path.unlink(missing_ok=True)
    _sweep_starting(files)


def _sweep_starting(files: RuntimeFiles) -> None:
    """Remove the lock file of a command that was killed while it started the machine."""
    if files.starting.exists():
        fd = _opened(files.starting)
        with contextlib.suppress(BlockingIOError):  # held by a command, perhaps by this one
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            files.starting.unlink(missing_ok=True)
        os.close(fd)


def sweep_if_dead(files: RuntimeFiles) -> None:
    """Sweep if the machine was killed together with its supervisor."""
    if not (files.record.exists() or files.socket.exists() or files.lock.exists()):
        return
    fd = take_life_lock(files, timeout=0)
    if fd is None:
        return
    try:
        sweep(files)
        files.lock.unlink(missing_ok=True)
    finally:
        os.close(fd)


def write_record(files: RuntimeFiles, record: Record) -> None:
    """Write the machine's record atomically."""
    draft = files.record.with_suffix(".new")
    draft.write_text(json.dumps(record._asdict()), encoding="utf-8")
    draft.rename(files.record)


def read_record(files: RuntimeFiles) -> Record | None:
    """Return the machine's record; None if it is missing or damaged."""
    try:
        fields = json.loads(files.record.read_text(encoding="utf-8"))
        return Record(
            str(fields["boot"]), int(fields["pid"]), int(fields["started"]), str(fields["work"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def boot_id() -> str:
    """Return the id of the host's boot: process ids are valid only within one boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_time(pid: int) -> int | None:
    """Return a process's start in clock ticks since boot; None if it does not exist."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else None


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (the state) on; empty if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def members(record: Record) -> list[int]:
    """Return the ids of the living processes of a machine's kernel."""
    if record.boot != boot_id():
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        fields = _stat_fields(int(entry.name))
        # The id of the session (6th) can be reused: an older process is not the machine's.
        if (
            fields
            and fields[0] not in "ZX"
            and int(fields[3]) == record.pid
            and int(fields[19]) >= record.started
        ):
            found.append(int(entry.name))
    return found


def end_kernel(record: Record) -> None:
    """Kill the processes of a machine's kernel, and wait for their end."""
    deadline = time.monotonic() + KILL_TIMEOUT
    # Repeated, because a process can fork while its session is listed.
    while (living := members(record)) and time.monotonic() < deadline:
        for pid in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                fd = os.pidfd_open(pid)
                try:
                    os.kill(pid, signal.SIGKILL)
                    select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
                finally:
                    os.close(fd)


def remove_work(work: str) -> None:
    """Remove a work directory; any other path is ignored."""
    path = Path(work)
    if path.name.startswith(WORK_PREFIX) and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
