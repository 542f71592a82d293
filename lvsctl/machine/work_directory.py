"""The directory that a machine works in, and where there is room for it."""

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
"""Room beside what is asked for."""


def directory(needed: int, *, executable: bool) -> Path:
    """Make a machine's work directory, with room for ``needed`` MiB.

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
        f"no room for a machine of {needed} MiB\n" + "\n".join(reasons),
        hint="set TMPDIR to a directory with room that allows exec, or ask for less --memory",
    )


def room() -> int:
    """MiB that the roomiest work directory can hold."""
    free = 0
    for candidate in _candidates():
        if not _unfit(candidate, 0, executable=True):
            free = max(free, shutil.disk_usage(candidate).free)
    return (free - SPARE) // MIB


def _candidates() -> Iterator[str]:
    # A memory file system first: on a disk the guest's pages would be written back.
    choices = ("/dev/shm", os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp")  # noqa: S108
    yield from dict.fromkeys(choice for choice in choices if choice.startswith("/"))


def _unfit(candidate: str, needed: int, *, executable: bool) -> str:
    """Why a directory cannot hold the machine; empty where it can."""
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
