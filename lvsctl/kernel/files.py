"""Errors of the file system in words: where, why and what helps; the limit of open files."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from lvsctl.errors import HostError

_HINTS = {
    errno.ENOSPC: "make room on it: `df -h /run; df -i /run`",
    errno.EROFS: "that file system is mounted read-only; lvsctl keeps its labs there",
}


@contextlib.contextmanager
def explaining(doing: str, path: Path | None = None) -> Iterator[None]:
    """Turn errors of the file system into HostErrors that say where and why."""
    try:
        yield
    except OSError as error:
        said = in_words(error, path)
        raise HostError(f"cannot {doing}: {said.message}", hint=said.hint) from error


def in_words(error: OSError, path: Path | None = None) -> HostError:
    """Return where and why; ``hint`` is empty where nothing is known to help.

    Of two files (a link, a renaming) it is the second that something is done to.
    """
    where = path or error.filename2 or error.filename
    message = f"{where}: {error.strerror}" if where else str(error.strerror or error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return HostError(message, hint=_permission(str(where or "/run")))
    return HostError(message, hint=_HINTS.get(error.errno or 0, ""))


def _permission(where: str) -> str:
    """Root is refused where it lacks CAP_DAC_OVERRIDE, as in containers, or a file is immutable."""
    if os.geteuid():
        return f"run it as root: `namei -l {where}` shows who may"
    return f"root may not do all here (a container's?): `namei -l {where}` shows who may"


def raise_file_limit(more: int) -> None:
    """Let this process open ``more`` files than now, as far as the hard limit goes.

    Raises OSError where it cannot open one file more. Where the limit is too low, opening fails.
    """
    need = len(os.listdir("/proc/self/fd")) + more  # noqa: PTH208 (a tenth of the time)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(need, hard), hard))
