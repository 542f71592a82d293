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
import os
import re
import select
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lvsctl.errors import HostError, UsageError
from lvsctl.machine import records

END_TIMEOUT = 15.0
"""Seconds for a machine to stop by itself before its processes are killed."""

START_TIMEOUT = 180.0
"""Seconds to wait for another command that starts the same machine."""

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
        if not _locked_in_time(fd):
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            os.close(fd)
            raise HostError(
                f"another command (process {holder}) is starting the machine {files.name}, and "
                f"is not done after {START_TIMEOUT:.0f} s",
                hint=f"end it: kill -9 {holder}",
            )
        if _is_same_file(fd, files.starting):
            break
        os.close(fd)  # its last holder removed it while we were waiting
    try:
        with contextlib.suppress(OSError):  # a full file system; the lock is held all the same
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        files.starting.unlink(missing_ok=True)
        os.close(fd)


def _locked_in_time(fd: int) -> bool:
    """Lock the file within START_TIMEOUT; return whether that was possible."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            select.select([], [], [], _POLL)  # flock has no timeout
        else:
            return True


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
    found = records.read(files.record)
    if found is not None:
        records.end_kernel(found)
        records.remove_work(found.work)
    for path in (files.socket, files.record, files.record.with_suffix(".new")):
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
