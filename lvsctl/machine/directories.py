"""The host's directories that machines use: the cache, and a work directory for each machine.

Kernels are unpacked in the cache once, by one process at a time. A work directory is on a file
system with enough space.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lvsctl.errors import HostError
from lvsctl.machine.records import WORK_PREFIX

_SCRATCH_PREFIX = "unpack."


def cache_directory() -> Path:
    """Return the cache directory, which may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "lvsctl"


@contextlib.contextmanager
def scratch_directory(cache: Path) -> Iterator[Path]:
    """Create a temporary directory, locked while in use; remove those of killed processes.

    It is in the cache itself, so that its content can be renamed to its final place atomically.
    """
    with contextlib.ExitStack() as stack:
        with _locked(
            cache, wait=True
        ):  # a new directory must be locked before another process checks it
            for stale in cache.glob(f"{_SCRATCH_PREFIX}*"):
                with contextlib.suppress(OSError), _locked(stale):
                    shutil.rmtree(stale, ignore_errors=True)
            made = tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=cache)
            place = Path(stack.enter_context(made))
            stack.enter_context(_locked(place))
        yield place


@contextlib.contextmanager
def _locked(directory: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a directory's lock. Unless ``wait``, raises BlockingIOError if it is held."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)


MIB = 1024 * 1024
SPARE = 64 * MIB
"""Space that must stay free beside what is requested."""


def create_work_directory(needed: int, *, executable: bool) -> Path:
    """Create a machine's work directory where ``needed`` MiB are free.

    ``executable``: its files are mapped executable, so the file system must allow exec.
    Raises HostError.
    """
    reasons = []
    for candidate in _candidates():
        reason = _unfit(candidate, needed, executable=executable)
        if not reason:
            return Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=candidate))
        reasons.append(f"{candidate}: {reason}")
    raise HostError(
        f"no space for a machine of {needed} MiB\n" + "\n".join(reasons),
        hint="set TMPDIR to a directory with enough space that allows exec, or use less --memory",
    )


def work_directory_room() -> int:
    """Return the MiB that the largest possible work directory can hold."""
    free = 0
    for candidate in _candidates():
        if not _unfit(candidate, 0, executable=True):
            free = max(free, shutil.disk_usage(candidate).free)
    return (free - SPARE) // MIB


def _candidates() -> Iterator[str]:
    # A memory file system first: on a disk the guest's memory would be written back.
    choices = ("/dev/shm", os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp")  # noqa: S108
    yield from dict.fromkeys(choice for choice in choices if choice.startswith("/"))


def _unfit(candidate: str, needed: int, *, executable: bool) -> str:
    """Return why a directory is not suitable; empty if it is."""
    try:
        found = os.statvfs(candidate)
    except OSError as error:
        return error.strerror or str(error)
    if not os.access(candidate, os.W_OK | os.X_OK):
        return "not writable"
    if executable and found.f_flag & os.ST_NOEXEC:
        return "mounted noexec"
    free = found.f_bavail * found.f_frsize
    if free < needed * MIB + SPARE:
        return f"only {free // MIB} MiB free"
    return ""
