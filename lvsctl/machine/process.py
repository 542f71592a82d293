"""The machine's process on the host: how one of any kind is started."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from lvsctl.errors import HostError
from lvsctl.machine import confinement


class StartedMachine(NamedTuple):
    """A machine's process, whose stdout is the console, and the host's end of its serial link.

    ``limitations`` say what root in the guest can do that this host cannot prevent.
    """

    process: subprocess.Popen[bytes]
    link: socket.socket
    limitations: tuple[str, ...]


def start_process(
    command: Callable[[int], list[str]],
    work: Path,
    directories: Sequence[str],
    *devices: str,
    preload: Path | None = None,
) -> StartedMachine:
    """Start the process, confined to ``work``, ``directories`` and ``devices`` if possible.

    ``command`` returns the command line, given the file descriptor of the guest's end of the
    serial link. ``preload`` is a library to load into it (LD_PRELOAD, ld.so(8)). The process
    has a session of its own, so that its helpers can be ended with it, and never the user's
    terminal, which User-Mode Linux would leave in raw mode. Raises HostError.
    """
    ours, theirs = socket.socketpair()
    read_end, write_end = os.pipe()

    def confined() -> None:
        for limitation in confinement.confine(work, directories, *devices):
            os.write(write_end, f"{limitation}\n".encode())

    passed = [theirs.fileno()]
    env = {"TMPDIR": str(work), "PATH": os.defpath, "HOME": "/"}
    try:
        if preload is not None:
            passed.append(os.open(preload, os.O_RDONLY | os.O_CLOEXEC))
            env["LD_PRELOAD"] = f"/proc/self/fd/{passed[-1]}"  # a path may contain spaces
        words = command(theirs.fileno())
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=passed,
            preexec_fn=confined,  # noqa: PLW1509 (the broker has only one thread so far)
            start_new_session=True,
            cwd="/",
            umask=0,  # the guest has applied the command's umask already
            env=env,
        )
    except (OSError, subprocess.SubprocessError) as error:
        os.close(read_end)
        ours.close()
        raise HostError(f"cannot start the machine: {error}") from error
    finally:
        theirs.close()
        for fd in passed[1:]:
            os.close(fd)
        os.close(write_end)
    with open(read_end, encoding="utf-8") as limitations:  # noqa: PTH123 (a descriptor)
        return StartedMachine(process, ours, tuple(limitations.read().splitlines()))
