"""The machine's process on the host: how one of any kind is started, and what it may write.

The guest's kernel restricts commands to the directories that they name, but root in the guest could
mount the host's tree for writing. So the machine's process gives up rights before it starts: with
a mount namespace of its own if possible (``mount_namespace``), by Landlock (landlock(7)), which
needs no privilege, and by dropping all capabilities but those for files.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import stat
import struct
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lvsctl import linux
from lvsctl.errors import HostError
from lvsctl.machine import config, mount_namespace
from lvsctl.machine.host_cpu import HostCpu


class StartedMachine(NamedTuple):
    """A machine's process, whose stdout is the console, and the host's end of its serial link.

    ``limitations`` say what root in the guest can do that this host cannot prevent.
    """

    process: subprocess.Popen[bytes]
    link: socket.socket
    limitations: tuple[str, ...]
    cpu: HostCpu | None = None
    """The host's CPU that it stays on; None: it runs on any."""


def start_process(
    command: Callable[[int], list[str]],
    work: Path,
    directories: Sequence[str],
    *devices: str,
    preload: Path | None = None,
    cpu: HostCpu | None = None,
) -> StartedMachine:
    """Start the process, confined to ``work``, ``directories`` and ``devices`` if possible.

    ``command`` returns the command line, given the file descriptor of the guest's end of the
    serial link. ``preload`` is a library to load into it (LD_PRELOAD, ld.so(8)), ``cpu`` the one
    that it stays on, with its helpers. The process has a session of its own, so that its helpers
    can be ended with it, and never the user's terminal, which User-Mode Linux would leave in raw
    mode. Raises HostError.
    """
    ours, theirs = socket.socketpair()
    read_end, write_end = os.pipe()

    def confined() -> None:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu.number})
        for limitation in confine(work, directories, *devices):
            os.write(write_end, f"{limitation}\n".encode())

    passed = [theirs.fileno()]
    env = {"TMPDIR": str(work), "PATH": os.defpath, "HOME": "/"}
    try:
        if preload is not None:
            passed.append(os.open(preload, os.O_RDONLY | os.O_CLOEXEC))
            env["LD_PRELOAD"] = f"/proc/self/fd/{passed[-1]}"  # a path may contain spaces
        words = command(theirs.fileno())
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=passed,
            preexec_fn=confined,  # noqa: PLW1509 (the broker has only one thread so far)
            start_new_session=True,
            cwd="/",
            umask=0,  # the guest has applied the command's umask already
            env=env,
        )
    except (OSError, subprocess.SubprocessError) as error:
        os.close(read_end)
        ours.close()
        raise HostError(f"cannot start the machine: {error}") from error
    finally:
        theirs.close()
        for fd in passed[1:]:
            os.close(fd)
        os.close(write_end)
    with open(read_end, encoding="utf-8") as limitations:  # noqa: PTH123 (a descriptor)
        return StartedMachine(process, ours, tuple(limitations.read().splitlines()), cpu)


_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION, _PATH_BENEATH = 1, 1

_WRITE_FILE, _REFER, _TRUNCATE = 1 << 1, 1 << 13, 1 << 14
_CHANGE_DIRECTORY = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR … MAKE_SYM
_ATTRIBUTE = struct.Struct("=Q")
_RULE = struct.Struct("=Qi")

FILES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4
"""CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID."""

USUAL = "root in the machine could change modes and times of files that are yours"
"""The limitation that remains unless the host's root starts the machine."""

_LANDLOCK = "this kernel has no Landlock (Linux 5.13, and in its lsm=)"

_CAPABILITY_VERSION = 0x20080522
_CAPABILITY_HEADER = struct.Struct("=Ii")
_CAPABILITIES = struct.Struct("=6I")
"""Effective, permitted, inheritable: the lower 32 bits of each, then the upper ones."""


def confine(work: Path, directories: Sequence[str], *devices: str) -> list[str]:
    """Confine the process that is about to become a machine; return what cannot be enforced.

    It may write its work directory, ``devices`` and ``directories``; later also directories that
    the broker opens (``mount_namespace.open_for``) or, without a mount namespace of its own, any
    that a command could name. Raises OSError.
    """
    limitations = []
    no_mounts = ""
    try:
        mount_namespace.become_read_only((*directories, str(work)))
    except OSError as error:
        no_mounts = f"no mount namespace ({error.filename}: {error.strerror})"
    drop_capabilities()
    no_new_privileges()
    if not restrict_writes((*config.writable_trees(), str(work), "/dev/null", *devices)):
        what = "all that you can write" if no_mounts else "this host's devices"
        limitations.append(f"{_LANDLOCK}: root in the machine could write {what}")
    elif no_mounts and os.geteuid() == 0:
        could = "change modes, owners and times of this host's files"
        limitations.append(f"{no_mounts}: root in the machine could {could}")
    elif no_mounts:
        limitations.append(USUAL)
    return limitations


def drop_capabilities() -> None:
    """Drop all capabilities but those needed to write other users' files. Raises OSError."""
    data = ctypes.create_string_buffer(_CAPABILITIES.size)
    header = _CAPABILITY_HEADER.pack(_CAPABILITY_VERSION, 0)
    linux.check(linux.libc.capget(header, data), "capget")
    effective, permitted, *_ = _CAPABILITIES.unpack(data.raw)
    # With no_new_privs, exec cannot add any. No inheritable ones, hence no ambient ones either.
    kept = (effective & FILES, permitted & FILES, 0, 0, 0, 0)
    linux.check(linux.libc.capset(header, _CAPABILITIES.pack(*kept)), "capset")


def no_new_privileges() -> None:
    """Keep programs from gaining privileges at exec. Raises OSError."""
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)


def restrict_writes(places: Iterable[str]) -> bool:
    """Restrict writing, by this process and its children, to files below ``places``.

    Needs ``no_new_privileges``. Open files are not affected; missing places are ignored. Returns
    whether the kernel supports this (Linux 5.13); otherwise nothing is restricted. Raises OSError.
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
