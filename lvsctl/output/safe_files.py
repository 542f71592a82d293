"""Files at a path that the user gave, where somebody else may have been first.

Under sudo, a link that another user has put in /tmp would be root's hand on any file. The
kernel refuses them itself where fs.protected_symlinks, _hardlinks and _regular are set
(Documentation/admin-guide/sysctl/fs.rst); its default is not to, so it is done here as well.
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

_MOST_LINKS = 40
"""As many links the kernel follows at most (linux/namei.h, MAXSYMLINKS)."""

_SHARED = stat.S_ISVTX | stat.S_IWOTH
"""A directory such as /tmp: everybody may put something there, and nobody remove another's."""

FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags of open(2) for a file that was not there: never one that a link of that name leads to."""


def opened(path: Path) -> BinaryIO:
    """``path`` to be written, from its start. Raises as ``nofollow``, and OSError.

    As tcpdump's -w: what is there is overwritten, links of one's own are followed, and pipes
    and /dev/stdout are fine.
    """
    flags = nofollow(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o666)
    try:
        found = os.fstat(fd)
        if flags and not inside_machine():
            _refuse_planted(path.absolute(), found)  # come between the look at it and now
        if stat.S_ISREG(found.st_mode):
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return os.fdopen(fd, "wb")


def replace(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Never through a link, and never half. ``mode`` None: as the umask has it. Raises OSError."""
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
    """O_NOFOLLOW for whoever opens ``path``; 0 where it is a link that may be followed.

    Raises UsageError where another user made a link on the way to it, or made what is there
    under that name in a directory like /tmp. Others' directories elsewhere are fine: a
    volume of a container's is often somebody else's.
    """
    try:
        if not inside_machine():  # its root is the host's user, and the host's side has looked
            _refuse(path.absolute())
        return 0 if path.is_symlink() else os.O_NOFOLLOW
    except OSError:
        return os.O_NOFOLLOW  # whoever opens it says why that is not possible


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
        raise _refused(path, f"is in a directory for everybody and {whose}")
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        # Anybody may have made it, of any file there, where fs.protected_hardlinks is not set.
        raise _refused(path, "is in a directory for everybody and a hard link to a file")


def _refused(place: Path, what: str) -> UsageError:
    return UsageError(
        f"{place} {what}: it is left alone",
        hint="name another file or directory, best in a directory of your own",
    )


def _ours() -> set[int]:
    """Users whose links lead where we want to go: root, ourselves, and who typed sudo."""
    typed = os.environ.get("SUDO_UID", "") if os.geteuid() == 0 else ""
    return {0, os.geteuid(), *([int(typed)] if typed.isdecimal() else [])}


def _links(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every link that is followed on the way to ``path``, an absolute one, and at its end."""
    here, todo, count = Path("/"), list(reversed(path.parts[1:])), 0
    while todo and count <= _MOST_LINKS:
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
