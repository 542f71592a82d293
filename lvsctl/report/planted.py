"""Files at a path that the user gave, where somebody else may have been first.

Under sudo, a link that another user has put in /tmp would be root's hand on any file. The
kernel refuses such links itself where fs.protected_symlinks and fs.protected_regular are set
(Documentation/admin-guide/sysctl/fs.rst); its default is not to, so it is done here as well.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lvsctl.errors import UsageError

_MOST_LINKS = 40
"""As many links the kernel follows at most (linux/namei.h, MAXSYMLINKS)."""

_SHARED = stat.S_ISVTX | stat.S_IWOTH
"""A directory such as /tmp: everybody may put something there, and nobody remove another's."""


def nofollow(path: Path) -> int:
    """O_NOFOLLOW for whoever opens ``path``; 0 where it is a link that may be followed.

    Raises UsageError where another user made a link on the way to it, or made what is there
    under that name in a directory like /tmp. Others' directories elsewhere are fine: a
    volume of a container's is often somebody else's.
    """
    from lvsctl.kernel.probe import inside_machine

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
            raise _refused(place, "a link", found)
    try:
        last, around = path.lstat(), path.parent.stat()
    except FileNotFoundError:
        return
    if last.st_uid not in ours and around.st_mode & _SHARED == _SHARED:
        raise _refused(path, "there", last)


def _refused(place: Path, what: str, found: os.stat_result) -> UsageError:
    return UsageError(
        f"{place} is {what} by another user's doing (user {found.st_uid}): it is left alone",
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
