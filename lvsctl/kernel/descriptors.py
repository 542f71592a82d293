"""How many files this process may have open, and the kernel's table of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource


def allow(count: int, *, spare: int = 0) -> None:
    """Raise the limit of open files to ``count`` and ``spare``, as far as the hard limit goes.

    And let the table hold ``count`` (``make_table_hold``). Raises nothing: where it is not
    enough, opening says so.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + spare:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + spare, hard), hard))
    make_table_hold(count)


def open_now() -> int:
    """How many files this process has open. Raises OSError where one more cannot be opened."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (a tenth of the time)


def make_table_hold(count: int) -> None:
    """Let the kernel's table of descriptors hold ``count`` of them, before threads share it.

    It grows by doubling; where threads share it, each time waits until no CPU can be reading
    the old one (fs/file.c, expand_fdtable): some 15 ms here, five times on the way to 2,000.
    Where they do already, it waits once: ask for no more than will be used. Where the limit
    of open files is lower, nothing is gained.
    """
    with contextlib.suppress(OSError):
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.close(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, count - 1))
        finally:
            os.close(fd)
