"""The host's directories that machines use: the cache, and a work directory for each machine.

Kernels are unpacked in the cache once, by one process at a time. A work directory is on a file
system with enough space.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lvsctl import linux
from lvsctl.errors import HostError
from lvsctl.machine.records import WORK_PREFIX

_SCRATCH_PREFIX = "unpack."


def cache_directory() -> Path:
    """Return the cache directory, which may not exist yet.

    Raises HostError if the user has no home directory. A relative XDG_CACHE_HOME is ignored, as
    the XDG Base Directory Specification requires.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():
        return base / "lvsctl"
    home = home_directory()
    if home is None:
        raise HostError(
            "there is no directory for the throwaway kernel: this user has no home directory",
            hint="set HOME, or XDG_CACHE_HOME, to a directory with 300 MB of free space",
        )
    return home / ".cache" / "lvsctl"


def home_directory() -> Path | None:
    """Return the user's home directory; None in a container whose user has none."""
    try:
        home = Path.home()
    except (RuntimeError, KeyError):
        return None
    return home if home.is_absolute() else None


MANIFEST = "lvsctl-sizes"
"""In a directory of the cache: the size of each file that belongs to it."""


def publish(tree: Path, target: Path) -> None:
    """Give a tree its final name, with a list of its files, once it is on the disk.

    Raises OSError.
    """
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    lines = [f"{path.stat().st_size} {path.relative_to(tree)}\n" for path in files]
    (tree / MANIFEST).write_text("".join(lines), encoding="utf-8")
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        linux.sync_file_system(fd)
    finally:
        os.close(fd)
    tree.rename(target)


def damaged(tree: Path) -> str:
    """Return what is wrong with a published tree; empty if its files have their sizes.

    A tree of an earlier version has no list, and is trusted.
    """
    try:
        lines = (tree / MANIFEST).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f"{tree / MANIFEST} cannot be read: {error}"
    for line in lines:
        size, _, name = line.partition(" ")
        try:
            found = (tree / name).stat().st_size
        except OSError as error:
            return f"{tree / name}: {error.strerror}"
        if str(found) != size:
            return f"{tree / name} has {found} bytes instead of {size}"
    return ""


@contextlib.contextmanager
def scratch_directory(cache: Path) -> Iterator[Path]:
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


MIB = 1024 * 1024
SPARE = 64 * MIB
"""Space that must stay free beside what is requested."""


def create_work_directory(needed: int, *, executable: bool) -> Path:
    """Create a machine's work directory where ``needed`` MiB are free.

    ``executable``: its files are mapped executable, so the file system must allow exec.
    Raises HostError.
    """
    reasons = []
    for candidate in _candidates():
        reason = _unfit(candidate, needed, executable=executable)
        if not reason:
            return Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=candidate))
        reasons.append(f"{candidate}: {reason}")
    raise HostError(
        f"no space for a machine of {needed} MiB\n" + "\n".join(reasons),
        hint="set TMPDIR to a directory with enough space that allows exec, or use less --memory",
    )


def work_directory_room() -> int:
    """Return the MiB that the largest possible work directory can hold."""
    free = 0
    for candidate in _candidates():
        if not _unfit(candidate, 0, executable=True):
            free = max(free, shutil.disk_usage(candidate).free)
    return (free - SPARE) // MIB


def _candidates() -> Iterator[str]:
    # A memory file system first: on a disk the guest's memory would be written back.
    choices = ("/dev/shm", os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp")  # noqa: S108
    yield from dict.fromkeys(choice for choice in choices if choice.startswith("/"))


def _unfit(candidate: str, needed: int, *, executable: bool) -> str:
    """Return why a directory is not suitable; empty if it is."""
    try:
        found = os.statvfs(candidate)
    except OSError as error:
        return error.strerror or str(error)
    if not os.access(candidate, os.W_OK | os.X_OK):
        return "not writable"
    if executable and found.f_flag & os.ST_NOEXEC:
        return "mounted noexec"
    free = found.f_bavail * found.f_frsize
    if free < needed * MIB + SPARE:
        return f"only {free // MIB} MiB free"
    return ""
