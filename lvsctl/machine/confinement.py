"""What a process may write on the host, whatever becomes of it.

The guest's kernel keeps commands to the directories that they name, but root in the guest could
mount the host's tree for writing. So the process that is the guest gives up, before it begins
and for good, what it must not do: with a view of its own where that is possible (``view``), by
Landlock (landlock(7)), which needs no privilege, and by all capabilities but those for files.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from lvsctl import linux
from lvsctl.machine import mount_namespace, writable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION, _PATH_BENEATH = 1, 1

_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_CHANGE_DIRECTORY = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR … MAKE_SYM
_ATTRIBUTE = struct.Struct("=Q")
_RULE = struct.Struct("=Qi")

FILES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4
"""CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID."""

USUAL = "root in the machine could change modes and times of files that are yours"
"""What cannot be held for anybody but the host's root."""

_LANDLOCK = "this kernel has no Landlock (Linux 5.13, and in its lsm=)"

_CAPABILITY_VERSION = 0x20080522
_CAPABILITY_HEADER = struct.Struct("=Ii")
_CAPABILITIES = struct.Struct("=6I")
"""Effective, permitted, inheritable: the lower 32 bits of each, then the upper ones."""


def guest(work: Path, directories: Sequence[str], *devices: str) -> list[str]:
    """Confine the process that is about to be a machine; returns what could not be held.

    It writes its work, ``devices`` and ``directories``; later also those that the broker opens
    for it (``view.open_for``), or without a view of its own whatever anybody could name.
    Raises OSError.
    """
    limitations = []
    without_view = ""
    try:
        mount_namespace.become_read_only((*directories, str(work)))
    except OSError as error:
        without_view = f"no mounts of its own ({error.filename}: {error.strerror})"
    drop_capabilities()
    no_new_privileges()
    if not restrict_writes((*writable.trees(), str(work), "/dev/null", *devices)):
        what = "all that you can write" if without_view else "this host's devices"
        limitations.append(f"{_LANDLOCK}: root in the machine could write {what}")
    elif without_view and os.geteuid() == 0:
        could = "change modes, owners and times of this host's files"
        limitations.append(f"{without_view}: root in the machine could {could}")
    elif without_view:
        limitations.append(USUAL)
    return limitations


def drop_capabilities() -> None:
    """Keep those that writing others' files in a named directory takes, and no other.

    Raises OSError.
    """
    data = ctypes.create_string_buffer(_CAPABILITIES.size)
    header = _CAPABILITY_HEADER.pack(_CAPABILITY_VERSION, 0)
    linux.check(linux.libc.capget(header, data), "capget")
    effective, permitted, *_ = _CAPABILITIES.unpack(data.raw)
    # Gone with these at exec, for no new privileges are to be had there. No inheritable ones,
    # hence no ambient ones either.
    kept = (effective & FILES, permitted & FILES, 0, 0, 0, 0)
    linux.check(linux.libc.capset(header, _CAPABILITIES.pack(*kept)), "capset")


def no_new_privileges() -> None:
    """What is executed from now on has no more than this process. Raises OSError."""
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def restrict_writes(places: Iterable[str]) -> bool:
    """This process and its children write nowhere but below ``places``, from now on.

    It can gain no privileges any more, or the kernel refuses. Files that are open already stay
    as they are. Returns whether the kernel can do this (from Linux 5.13); where it cannot,
    nothing is restricted. Missing places are left out. Raises OSError.
    """
    version = linux.libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    rights = _WRITE_FILE | _CHANGE_DIRECTORY
    rights |= _REFER if version >= 2 else 0  # else renaming from directory to directory fails
    rights |= _TRUNCATE if version >= 3 else 0
    attribute = _ATTRIBUTE.pack(rights)
    size = ctypes.c_size_t(len(attribute))
    ruleset = linux.syscall("landlock_create_ruleset", _CREATE_RULESET, attribute, size, 0)
    try:
        for place in places:
            with contextlib.suppress(FileNotFoundError, PermissionError):
                _allow(ruleset, place, rights)
        linux.syscall("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, place: str, rights: int) -> None:
    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _WRITE_FILE | _TRUNCATE
        rule = _RULE.pack(rights, fd)
        linux.syscall(place, _ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(fd)
