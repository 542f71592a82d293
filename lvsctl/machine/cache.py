"""The user's cache of lvsctl, in which kernels are unpacked once, by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_SCRATCH_PREFIX = "unpack."


def directory() -> Path:
    """Return the cache directory, which may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "lvsctl"


@contextlib.contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """Create a temporary directory, locked while in use; remove those of killed processes.

    It is in the cache itself, so that its content can be renamed to its final place atomically.
    """
    with contextlib.ExitStack() as stack:
        with _locked(
            cache, wait=True
        ):  # a new directory must be locked before another process checks it
            for stale in cache.glob(f"{_SCRATCH_PREFIX}*"):
                with contextlib.suppress(OSError), _locked(stale):
                    shutil.rmtree(stale, ignore_errors=True)
            made = tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=cache)
            place = Path(stack.enter_context(made))
            stack.enter_context(_locked(place))
        yield place


@contextlib.contextmanager
def _locked(directory: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a directory's lock. Unless ``wait``, raises BlockingIOError if it is held."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)
