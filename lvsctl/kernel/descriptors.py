"""The table of this process's open files."""

from __future__ import annotations

import contextlib
import fcntl
import os


def make_table_hold(count: int) -> None:
    """Let the kernel's table of descriptors hold ``count`` of them, before threads share it.

    It grows by doubling, and where it is shared waits each time until no CPU can be reading
    the old one (fs/file.c, expand_fdtable): 15 ms, five times on the way to 2,000. Where the
    limit of open files is lower, or there are threads already, nothing is lost.
    """
    with contextlib.suppress(OSError):
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.close(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, count - 1))
        finally:
            os.close(fd)
