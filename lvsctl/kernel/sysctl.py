"""Sysctls of the calling thread's network namespace.

/proc/sys/net shows the namespace of whoever opens it, so that entering it and
writing is all: 0.03 ms, where sysctl(8) under `ip netns exec` costs 56.

But the kernel's cache of names keeps one entry `ipv4` for each namespace that was looked
into, all of them in one chain (fs/proc/proc_sysctl.c, proc_sys_compare), so that the
thousandth namespace costs ten times what the first does. ``Instance`` stays clear of that.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from pathlib import Path

from lvsctl.errors import KernelError

ROOT = "/proc/sys/"

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same numbers on every architecture but alpha
_CLOEXEC, _CMD_CREATE = 1, 6  # FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC; FSCONFIG_CMD_CREATE


class Instance:
    """A procfs of our own for ``write``, mounted nowhere, replaced by a fresh one now and then.

    Its cache of names goes with it, so no chain in there gets long, nor does the one of /proc.
    Where the kernel has none to give (before 5.8, or a container that forbids it) it is /proc.
    """

    NAMESPACES = 64
    """How many are looked into before it is replaced, which takes the kernel a millisecond."""

    def __init__(self) -> None:
        self._fd = -1
        self._left = 0

    def next_namespace(self) -> None:
        """Another namespace is about to be written to."""
        self._left -= 1
        if self._left < 0:
            self.close()
            self._fd = _procfs()
            self._left = self.NAMESPACES - 1

    def open(self, file: str) -> int:
        """``file``, of those that ``path`` gives, opened for writing. Raises OSError."""
        flags = os.O_WRONLY | os.O_CLOEXEC
        if self._fd < 0:
            return os.open(file, flags)
        return os.open(file.removeprefix("/proc/"), flags, dir_fd=self._fd)

    def close(self) -> None:
        """Let go of it; the next namespace gets a new one."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._left = -1, 0


def _procfs() -> int:
    """A descriptor of a new instance of procfs; -1 where there can be none (fsopen(2))."""
    call = ctypes.CDLL(None).syscall
    context = call(_FSOPEN, b"proc", _CLOEXEC)
    if context < 0:
        return -1
    try:
        if call(_FSCONFIG, context, _CMD_CREATE, None, None, 0) < 0:
            return -1
        return int(call(_FSMOUNT, context, _CLOEXEC, 0))
    finally:
        os.close(context)


@functools.cache
def path(key: str) -> str:
    """The file of a sysctl, its name dotted as sysctl(8) takes it.

    In a device's name a dot is written as a slash: net.ipv4.conf.eth0/1.rp_filter.
    Raises KernelError for a key that is no namespace's own: writing that would
    change the host.
    """
    parts = [part.replace("/", ".") for part in key.split(".")]
    if parts[0] != "net" or len(parts) < 3 or any(part in ("", ".", "..") for part in parts):
        raise KernelError(f"sysctl {key} does not belong to a network namespace",
                          hint="only net.* sysctls can be set on a node",
                          errno=errno.EINVAL)  # fmt: skip
    return ROOT + "/".join(parts)


def write(key: str, value: str, *, optional: bool = False, through: Instance | None = None) -> None:
    """Set a sysctl. Raises OSError; a missing one that is ``optional`` is left out."""
    try:
        fd = (through or Instance()).open(path(key))
    except FileNotFoundError:
        if optional:
            return
        raise
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read(key: str) -> str | None:
    """The value of a sysctl; None where the kernel has not got it."""
    try:
        return Path(path(key)).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
