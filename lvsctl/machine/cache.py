"""What lvsctl keeps in the user's cache: kernels, unpacked once. Whoever comes second waits."""

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
    """The user's cache of lvsctl; perhaps not made yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "lvsctl"


@contextlib.contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """A directory to unpack in, locked while in use; those of killed processes are removed.

    It is a sibling of the final place: the rename that publishes must be atomic.
    """
    with contextlib.ExitStack() as stack:
        with _locked(cache, wait=True):  # nobody may take a directory for stale before it is locked
            for stale in cache.glob(f"{_SCRATCH_PREFIX}*"):
                with contextlib.suppress(OSError), _locked(stale):
                    shutil.rmtree(stale, ignore_errors=True)
            made = tempfile.TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=cache)
            place = Path(stack.enter_context(made))
            stack.enter_context(_locked(place))
        yield place


@contextlib.contextmanager
def _locked(directory: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a directory's lock. Unless it waits, raises BlockingIOError where another has it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)
