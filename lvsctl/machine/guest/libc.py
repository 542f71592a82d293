"""The few system calls that Python 3.11 does not offer. All raise OSError."""

from __future__ import annotations

import ctypes
import os

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SHARED = 0x100000

CLONE_NEWNS = 0x20000
MNT_DETACH = 2

_SYS_FINIT_MODULE = 313 if os.uname().machine == "x86_64" else 273
_MODULE_INIT_COMPRESSED_FILE = 4
_RB_POWER_OFF = 0x4321FEDC

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)


def _checked(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(options)
    )
    _checked(result, target)


def unmount(target: str) -> None:
    """umount2(2), at once for names; what is open stays usable."""
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(flags), "unshare")


def load_module(path: str, parameters: str = "") -> None:
    """finit_module(2); the kernel unpacks a compressed file itself where it can."""
    flags = 0 if path.endswith(".ko") else _MODULE_INIT_COMPRESSED_FILE
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        result = _libc.syscall(_SYS_FINIT_MODULE, fd, parameters.encode(), flags)
        _checked(result, path)
    finally:
        os.close(fd)


def power_off() -> None:
    """reboot(2) with the command to power off: ends the machine at once, without syncing."""
    _checked(_libc.reboot(_RB_POWER_OFF), "power off")
