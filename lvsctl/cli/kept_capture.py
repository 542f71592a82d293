"""Where ``verify`` keeps the capture of a lab that does not pass, without being asked.

One file for each lab, replaced the next time: ``LAB.pcapng`` in the directory that
``LVSCTL_CAPTURES`` names, or in ``lvsctl-captures-UID`` where temporary files are. Nothing
is written where all claims pass.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lvsctl.cli.failure import say
from lvsctl.errors import UsageError
from lvsctl.model.claim import Verdict

if TYPE_CHECKING:
    from lvsctl.engine.results import Verification

VARIABLE = "LVSCTL_CAPTURES"


def handed_over() -> Path | None:
    """The directory, for a command in the machine to write: told it by the environment.

    None where the machine must not write there.
    """
    from lvsctl.machine import writable

    directory = _directory()
    if _is_anothers(directory) or writable.refusal(os.path.realpath(directory)) is not None:
        return None
    os.environ[VARIABLE] = str(directory)
    return directory


def keep(result: Verification) -> str | None:
    """Write the capture of what does not pass; where it is. None where there is none to open.

    A capture that cannot be written is no reason to say less about the lab: that is a remark.
    """
    if result.verdict is Verdict.PASS or not result.evidence.frames:
        return None
    from lvsctl.output import planted
    from lvsctl.output.evidence import capture_bytes

    directory = _directory()
    path = directory / f"{result.lab.name}.pcapng"
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Now and not before: where it is ours, nobody else can put another in its place.
        if _is_anothers(directory):
            _remark(path, "the directory is not yours alone")
            return None
        planted.replace(path, capture_bytes(result.evidence), mode=0o644)  # sudo's user reads it
    except OSError as error:
        _remark(path, error.strerror or "it cannot be written")
        return None
    return str(path)


def _remark(path: Path, reason: str) -> None:
    say(f"the capture is not kept in {path}: {reason}; --report DIR writes it elsewhere")


def _directory() -> Path:
    given = os.environ.get(VARIABLE, "")
    if given:
        return Path(given).absolute()
    # Not the directory of the machine's sockets: a command in the machine may write here.
    return Path(tempfile.gettempdir(), f"lvsctl-captures-{os.getuid()}")


def _is_anothers(directory: Path) -> bool:
    """Whether somebody else waits there, under a name in /tmp that anyone can foresee.

    In a directory that was chosen others may write as well; only what ``planted`` refuses is
    not for us.
    """
    if os.environ.get(VARIABLE):
        from lvsctl.output import planted

        try:
            planted.nofollow(directory)
        except UsageError:
            return True
        return False
    try:
        found = directory.lstat()
    except OSError:
        return False
    mine = found.st_uid == os.getuid() and not found.st_mode & stat.S_IWOTH
    return not stat.S_ISDIR(found.st_mode) or not mine
