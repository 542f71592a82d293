"""Write files without following another user's links, in /tmp for example.

Under sudo, a link that another user made in /tmp could direct root's writes to any file. The
kernel refuses that only if fs.protected_symlinks, _hardlinks and _regular are set
(Documentation/admin-guide/sysctl/fs.rst), which is not its default.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lvsctl.errors import UsageError
from lvsctl.kernel.probe import inside_machine

_MAX_LINKS = 40
"""Symlinks that the kernel follows at most (linux/namei.h, MAXSYMLINKS)."""

_SHARED = stat.S_ISVTX | stat.S_IWOTH
"""Mode of a directory such as /tmp: world-writable and sticky."""

FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags of open(2) for a new file: fails if the name exists, even as a symlink."""


def opened(path: Path) -> BinaryIO:
    """Open ``path`` for writing and truncate it. Raises as ``nofollow``, and OSError.

    As with tcpdump's -w, an existing file is overwritten, the user's own symlinks are
    followed, and pipes and /dev/stdout are accepted.
    """
    flags = nofollow(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o666)
    try:
        found = os.fstat(fd)
        if flags and not inside_machine():
            _refuse_planted(path.absolute(), found)  # may have been made since the check
        if stat.S_ISREG(found.st_mode):
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return os.fdopen(fd, "wb")


def replace(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Replace a file atomically, not through a symlink. Raises OSError.

    ``mode`` None means the umask's.
    """
    fresh = path.with_name(f".{path.name}-{os.urandom(6).hex()}")
    fd = os.open(fresh, FRESH, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            if mode is not None:
                os.fchmod(fd, mode)
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise


def nofollow(path: Path) -> int:
    """Return O_NOFOLLOW for opening ``path``, or 0 if it is a symlink that may be followed.

    Raises UsageError if another user made a symlink in its path, or made the file itself in a
    directory like /tmp. Other users' directories elsewhere are accepted: a container's volume
    often belongs to another user.
    """
    try:
        if not inside_machine():  # the host checked it already
            _refuse(path.absolute())
        return 0 if path.is_symlink() else os.O_NOFOLLOW
    except OSError:
        return os.O_NOFOLLOW  # opening it will report the error


def _refuse(path: Path) -> None:
    ours = _ours()
    for place, found in _links(path):
        if found.st_uid not in ours:
            raise _refused(place, f"is a link made by another user (uid {found.st_uid})")
    with suppress(FileNotFoundError):
        _refuse_planted(path, path.lstat())


def _refuse_planted(path: Path, found: os.stat_result) -> None:
    if path.parent.stat().st_mode & _SHARED != _SHARED:
        return
    if found.st_uid not in _ours():
        whose = f"belongs to another user (uid {found.st_uid})"
        raise _refused(path, f"is in a world-writable directory and {whose}")
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        # Any user can link any file there, unless fs.protected_hardlinks is set.
        raise _refused(path, "is in a world-writable directory and a hard link to a file")


def _refused(place: Path, what: str) -> UsageError:
    return UsageError(
        f"{place} {what}: not written",
        hint="name another file or directory, preferably in a directory of your own",
    )


def _ours() -> set[int]:
    """Users whose links are trusted: root, the current user, and the user of sudo."""
    typed = os.environ.get("SUDO_UID", "") if os.geteuid() == 0 else ""
    return {0, os.geteuid(), *([int(typed)] if typed.isdecimal() else [])}


def _links(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Iterate over the symlinks that opening the absolute ``path`` follows."""
    here, todo, count = Path("/"), list(reversed(path.parts[1:])), 0
    while todo and count <= _MAX_LINKS:
        part = todo.pop()
        place = here.parent if part == ".." else here / part
        try:
            found = place.lstat()
            if not stat.S_ISLNK(found.st_mode):
                here = place
                continue
            target = place.readlink()
        except FileNotFoundError:
            return
        yield place, found
        count += 1
        if target.is_absolute():
            here = Path("/")
        todo += reversed([part for part in target.parts if part != "/"])
