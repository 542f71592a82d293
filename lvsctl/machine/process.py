"""The process that is a machine: how one of any kind is started on the host."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from lvsctl.errors import HostError

from . import confine


def started(
    command: Callable[[int], list[str]], work: Path, *devices: str
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start it; returns the process (its stdout is the console) and our end of the line.

    ``command`` says the command line, by the number of the file descriptor that is the guest's
    end of the line. Whatever root in there does, of the host's system it writes nothing but
    ``devices``. It has a session of its own: its helpers are ended with it, and the user's
    terminal, which User-Mode Linux would leave in raw mode, is not for it. Raises HostError.
    """
    ours, theirs = socket.socketpair()
    try:
        words = command(theirs.fileno())
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(),),
            preexec_fn=lambda: confine.guest(work, *devices),  # noqa: PLW1509 (the broker has one thread yet)
            start_new_session=True,
            cwd="/",
            umask=0,  # files are made with it; a command's own umask has been applied then
            env={"TMPDIR": str(work), "PATH": os.defpath, "HOME": "/"},
        )
    except OSError as error:
        raise HostError(f"cannot start {words[0]}: {error.strerror}") from error
    finally:
        theirs.close()
    return process, ours
