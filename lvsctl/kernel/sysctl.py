"""Sysctls of the calling thread's network namespace.

/proc/sys/net shows the namespace of the thread that opens it.

The kernel's cache of names keeps one entry `ipv4` for each namespace that was opened there, all
of them in one chain (fs/proc/proc_sysctl.c, proc_sys_compare), so that opening a file takes
longer with every namespace. ``Procfs`` avoids that.
"""

from __future__ import annotations

import errno
import functools
import os

from lvsctl import linux
from lvsctl.errors import KernelError

ROOT = "/proc/sys/"
_PAGE = 4096

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same numbers on every architecture but alpha
_CLOEXEC, _CMD_CREATE = 1, 6  # FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC; FSCONFIG_CMD_CREATE


class Procfs:
    """A procfs of its own, mounted nowhere and replaced after some namespaces.

    Its cache of names goes with it, so no chain in it gets long, nor does that of /proc.
    Where the kernel cannot create one (before 5.8, or in a container) it is /proc.
    """

    NAMESPACES = 64
    """How many are entered before it is replaced."""

    def __init__(self) -> None:
        self._fd = -1
        self._left = 0

    def next_namespace(self) -> None:
        """Prepare for writing to another namespace."""
        self._left -= 1
        if self._left < 0:
            self.close()
            self._fd = _new_procfs()
            self._left = self.NAMESPACES - 1

    def open(self, file: str, flags: int = os.O_WRONLY) -> int:
        """Open ``file``, as ``path`` returns it. Raises OSError."""
        if self._fd < 0:
            return os.open(file, flags | os.O_CLOEXEC)
        return os.open(file.removeprefix("/proc/"), flags | os.O_CLOEXEC, dir_fd=self._fd)

    def close(self) -> None:
        """Close it; the next namespace gets a new one."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._left = -1, 0


def _new_procfs() -> int:
    """Return a descriptor of a new instance of procfs; -1 where that fails (fsopen(2))."""
    try:
        context = linux.syscall("fsopen", _FSOPEN, b"proc", _CLOEXEC)
    except OSError:
        return -1
    try:
        linux.syscall("fsconfig", _FSCONFIG, context, _CMD_CREATE, None, None, 0)
        return linux.syscall("fsmount", _FSMOUNT, context, _CLOEXEC, 0)
    except OSError:
        return -1
    finally:
        os.close(context)


@functools.cache
def path(key: str) -> str:
    """Return the file of a sysctl, whose name has dots as for sysctl(8).

    In a device's name a dot is written as a slash: net.ipv4.conf.eth0/1.rp_filter.
    Raises KernelError for a key that is not of a namespace: writing it would change the
    host.
    """
    parts = [part.replace("/", ".") for part in key.split(".")]
    if parts[0] != "net" or len(parts) < 3 or any(part in ("", ".", "..") for part in parts):
        raise KernelError(f"sysctl {key} does not belong to a network namespace",
                          hint="only net.* sysctls can be set on a node",
                          errno=errno.EINVAL)  # fmt: skip
    return ROOT + "/".join(parts)


def write(key: str, value: str, *, optional: bool = False, through: Procfs | None = None) -> None:
    """Write a sysctl. Raises OSError, but for a missing one that is ``optional``."""
    try:
        fd = (through or Procfs()).open(path(key))
    except FileNotFoundError:
        if optional:
            return
        raise
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read(key: str, *, through: Procfs | None = None) -> str | None:
    """Read a sysctl; None where the kernel does not have it."""
    try:
        fd = (through or Procfs()).open(path(key), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, _PAGE).decode().strip()
    finally:
        os.close(fd)
