"""What a process may write on the host, whatever becomes of it: Landlock (landlock(7)).

The guest's kernel keeps commands to the directories that they name, but root in the guest could
mount the host's tree for writing. So the process that is the guest gives up, before it begins,
all writing in the host's system, for good and without any privilege.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from . import writable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION, _PATH_BENEATH = 1, 1
_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS

_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_CHANGE_DIRECTORY = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR … MAKE_SYM
_ATTRIBUTE = struct.Struct("=Q")
_RULE = struct.Struct("=Qi")


def guest(work: Path, *devices: str) -> None:
    """What the process that is a machine may write: what could be named, its work, ``devices``."""
    restrict_writes((*writable.trees(), str(work), "/dev/null", *devices))


def restrict_writes(places: Iterable[str]) -> bool:
    """This process and its children write nowhere but below ``places``, from now on.

    Files that are open already stay as they are. Returns whether the kernel can do this (from
    Linux 5.13); where it cannot, nothing is restricted. Missing places are left out.
    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    rights = _WRITE_FILE | _CHANGE_DIRECTORY
    rights |= _REFER if version >= 2 else 0  # else renaming from directory to directory fails
    rights |= _TRUNCATE if version >= 3 else 0
    attribute = _ATTRIBUTE.pack(rights)
    ruleset = libc.syscall(_CREATE_RULESET, attribute, ctypes.c_size_t(len(attribute)), 0)
    _check(ruleset, "landlock_create_ruleset")
    try:
        for place in places:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                _allow(libc, ruleset, place, rights)
        _check(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")
        _check(libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return True


def _allow(libc: ctypes.CDLL, ruleset: int, place: str, rights: int) -> None:
    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _WRITE_FILE | _TRUNCATE
        rule = _RULE.pack(rights, fd)
        _check(libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), place)
    finally:
        os.close(fd)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
