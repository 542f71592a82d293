"""The directories of the host that a command in the machine may write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lvsctl.errors import UsageError

_SYSTEM_TREES = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc"),
    *("/run", "/sbin", "/sys", "/usr", "/var/backups", "/var/mail", "/var/spool"),
)
"""Never writable, nor anything below them."""

_SHARED_ROOTS = ("/", "/home", "/media", "/mnt", "/opt", "/srv", "/var", "/var/lib")
"""Not writable themselves, but directories below them are."""

_USERS_OWN = ("/usr/local", "/usr/src", "/run/media", f"/run/user/{os.getuid()}")
"""Below a system tree, but where users keep or mount their own files."""


def refusal(directory: str) -> str | None:
    """Return why a directory (absolute, no symlinks) must not be written; None if it may be."""
    if directory in _SHARED_ROOTS:
        return "too much of the host would be writable"
    if any(directory.startswith(f"{own}/") for own in _USERS_OWN):
        return None
    if any(directory == tree or directory.startswith(f"{tree}/") for tree in _SYSTEM_TREES):
        return "it belongs to the host's system"
    return None


def trees() -> tuple[str, ...]:
    """Return the directories of this host below which any writable directory lies."""
    found: list[str] = []
    for path in _directories("/"):
        if any(tree.startswith(f"{path}/") for tree in _SYSTEM_TREES):
            found += _directories(path)
        else:
            found.append(path)
    return (*(path for path in found if path not in _SYSTEM_TREES), *_USERS_OWN)


def _directories(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))


def named(directories: Iterable[str]) -> tuple[str, ...]:
    """Return the directories that the user named, resolved and in order. Raises UsageError."""
    found: dict[str, None] = {}
    for directory in directories:
        path = os.path.realpath(directory)
        if not Path(path).is_dir():
            raise UsageError(f"cannot make {directory} writable: not a directory")
        reason = refusal(path)
        if reason is not None:
            raise UsageError(
                f"cannot make {directory} writable in the machine: {reason}",
                hint="use a directory of your own",
            )
        found[path] = None
    return tuple(found)


def from_environment() -> list[str]:
    """Return the directories in ``LVSCTL_WRITABLE``, separated by colons."""
    return [entry for entry in os.environ.get("LVSCTL_WRITABLE", "").split(":") if entry]
