"""Errors of the file system, in words: where, why and what helps."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from lvsctl.errors import HostError

_HINTS = {
    errno.ENOSPC: "make room on it: `df -h /run; df -i /run`",
    errno.EROFS: "that file system is mounted read-only; lvsctl keeps its labs there",
    errno.EACCES: "run it as root",
    errno.EPERM: "run it as root",
}


@contextlib.contextmanager
def explaining(doing: str, path: Path | None = None) -> Iterator[None]:
    """Errors of the file system become HostErrors that say where and why."""
    try:
        yield
    except OSError as error:
        said = in_words(error, path)
        raise HostError(f"cannot {doing}: {said.message}", hint=said.hint) from error


def in_words(error: OSError, path: Path | None = None) -> HostError:
    """Where and why; ``hint`` is empty where nothing helps for certain."""
    where = path or error.filename
    message = f"{where}: {error.strerror}" if where else str(error.strerror or error)
    return HostError(message, hint=_HINTS.get(error.errno or 0, ""))
