"""Giving root up, by a process that has done what it needed root for."""

from __future__ import annotations

import contextlib
import ctypes
import os

NOBODY = 65534
"""The user and group that own nothing."""

_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS


def give_up_root() -> None:
    """Be nobody from now on, without any capability, for good; who is not root stays who it is.

    Sockets and files that are open stay open. In a user namespace that has no nobody,
    root of that namespace remains, without a way to more.
    """
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # EINVAL: no such user here
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
