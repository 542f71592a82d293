"""System calls that Python's standard library does not offer. All raise OSError.

Used by every room that mounts, enters namespaces or restricts a process, and by process 1 of the
machine, which starts on a slow kernel: hence no import but ctypes and os.
"""

from __future__ import annotations

import ctypes
import os

CLONE_FS = 0x200
CLONE_NEWNS = 0x20000
CLONE_NEWUTS = 0x4000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000

MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_FINIT_MODULE = 313 if os.uname().machine == "x86_64" else 273
_MODULE_INIT_COMPRESSED_FILE = 4
_RB_POWER_OFF = 0x4321FEDC

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)


def check(result: int, what: str) -> int:
    """Return the result of a call of ``libc``; raise OSError, about ``what``, if it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def syscall(what: str, number: int, *arguments: object) -> int:
    """syscall(2) by number. ``what`` names it, or its object, in an OSError."""
    return check(libc.syscall(number, *arguments), what)


def unshare(flags: int) -> None:
    """unshare(2): move the calling thread into new namespaces (CLONE_...)."""
    check(libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2): move the calling thread into the namespace behind ``fd``."""
    check(libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), flags)
    check(libc.mount(*arguments, os.fsencode(options)), target)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2); by default the name is free at once and what is open stays usable."""
    check(libc.umount2(os.fsencode(target), flags), target)


def sync_file_system(fd: int) -> None:
    """syncfs(2): write the file system of ``fd`` to its disk."""
    check(libc.syncfs(fd), "syncfs")


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument."""
    check(libc.prctl(option, value, 0, 0, 0), "prctl")


def disconnect(fd: int) -> None:
    """Dissolve the peer of a UDP socket (connect(2), AF_UNSPEC; Python has no such address)."""
    check(libc.connect(fd, bytes(16), 16), "connect")


def load_module(path: str, parameters: str = "") -> None:
    """finit_module(2); a compressed file is left to the kernel to decompress."""
    flags = 0 if path.endswith(".ko") else _MODULE_INIT_COMPRESSED_FILE
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscall(path, _FINIT_MODULE, fd, parameters.encode(), flags)
    finally:
        os.close(fd)


def power_off() -> None:
    """reboot(2) with the command to power off: ends the machine at once, without syncing."""
    check(libc.reboot(_RB_POWER_OFF), "power off")
