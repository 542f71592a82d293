"""The exit statuses, and which error means which. They are a stable interface for scripts."""

from __future__ import annotations

from enum import IntEnum

from lvsctl.errors import (
    DamagedFile,
    HostError,
    KernelError,
    LabError,
    LvsctlError,
    SpecError,
    UsageError,
)


class ExitStatus(IntEnum):
    """What a script can tell from ``$?``; 65, 69 and 70 are those of sysexits(3)."""

    OK = 0
    CLAIM_FAILED = 1
    USAGE = 2
    BAD_TOPOLOGY = 65
    HOST_CANNOT = 69
    BUG = 70
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    HUNG_UP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


MEANINGS = (
    (ExitStatus.OK, "fine"),
    (ExitStatus.CLAIM_FAILED, "verify: a claim did not pass; diagnose: a cause was found"),
    (ExitStatus.USAGE, "the command line is wrong, or names a lab that is not there or is held"),
    (
        ExitStatus.BAD_TOPOLOGY,
        "the topology is wrong (every mistake is listed with its line), or a report damaged",
    ),
    (ExitStatus.HOST_CANNOT, "this host cannot; the message says what to type"),
    (ExitStatus.BUG, "a bug in lvsctl"),
    (ExitStatus.INTERRUPTED, "interrupted by Ctrl-C; what was half done has been undone"),
)
"""The table for ``lvsctl --help``."""

_OF_ERROR: tuple[tuple[type[LvsctlError], ExitStatus], ...] = (
    (UsageError, ExitStatus.USAGE),
    # Nothing is wrong with the host, and nothing with lvsctl: other words would have worked.
    (LabError, ExitStatus.USAGE),
    (SpecError, ExitStatus.BAD_TOPOLOGY),
    # 65 is sysexits(3)'s EX_DATAERR: what was given as input is wrong, a topology or not.
    (DamagedFile, ExitStatus.BAD_TOPOLOGY),
    (HostError, ExitStatus.HOST_CANNOT),
    (KernelError, ExitStatus.HOST_CANNOT),
)


def status_of(error: LvsctlError) -> ExitStatus:
    """The exit status of a command that ends with ``error``."""
    return next((status for kind, status in _OF_ERROR if isinstance(error, kind)), ExitStatus.BUG)
