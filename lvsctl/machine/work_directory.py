"""The work directory of a machine, on a file system with enough space."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lvsctl.errors import HostError
from lvsctl.machine.runtime_files import WORK_PREFIX

MIB = 1024 * 1024
SPARE = 64 * MIB
"""Space that must stay free beside what is requested."""


def directory(needed: int, *, executable: bool) -> Path:
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


def room() -> int:
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
