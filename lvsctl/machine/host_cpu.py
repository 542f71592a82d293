"""A CPU of the host for a machine that has one CPU itself.

The kernel of User-Mode Linux and every process in it are processes of the host, which hand over to
one another with each system call and each page fault. On two CPUs of an idle host every handover
wakes the other one up, and takes twice as long as on one.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

_MACHINES = 64
"""Names that each CPU has: one for each machine that takes it."""


class HostCpu(NamedTuple):
    """A CPU by its number, and what other machines see of it: a name that is taken."""

    number: int
    claim: socket.socket


def claim() -> HostCpu | None:
    """Take the CPU that the fewest machines have, and among equal ones the first.

    It is given back when this process ends, or closes the claim. Whatever else runs on the host
    may use it all the same. None where no name can be had.
    """
    for other in range(_MACHINES):
        for number in sorted(os.sched_getaffinity(0)):
            name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                # Abstract (unix(7)): no file is left, and all users of the host see it.
                name.bind(f"\0lvsctl-machine-cpu-{number}-{other}")
            except OSError:  # taken
                name.close()
            else:
                return HostCpu(number, name)
    return None
