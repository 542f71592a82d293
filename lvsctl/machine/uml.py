"""How User-Mode Linux is started: where its memory lies and what it is told."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvsctl.errors import HostError

from . import confine, writable
from .install import Kernel
from .places import WORK_PREFIX

MIB = 1024 * 1024
SPARE = 64 * MIB
"""Room beside the guest's memory."""

USELESS_INITCALLS = ("raid6_select_algo", "init_zswap")
"""Parts of the kernel that take half of its boot (a RAID 6 benchmark) and serve no lab."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a machine is started with. ``memory`` is in MiB."""

    kernel: Kernel
    memory: int
    writable: tuple[str, ...]
    path: tuple[str, ...]
    fingerprint: str


def work_directory(memory: int) -> Path:
    """Make the directory that holds UML's memory and sockets.

    The guest's memory is a file there, mapped executable, so the file system must allow
    exec and have room. Raises HostError.
    """
    reasons = []
    for candidate in _candidates():
        reason = _unfit(candidate, memory)
        if not reason:
            return Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=candidate))
        reasons.append(f"{candidate}: {reason}")
    raise HostError(
        f"no room for a machine of {memory} MiB\n" + "\n".join(reasons),
        hint="set TMPDIR to a directory with room that allows exec, or ask for less --memory",
    )


def _candidates() -> Iterator[str]:
    # A memory file system first: on a disk the guest's pages would be written back.
    choices = ("/dev/shm", os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp")  # noqa: S108
    yield from dict.fromkeys(choice for choice in choices if choice.startswith("/"))


def _unfit(directory: str, memory: int) -> str:
    """Why a directory cannot hold the machine; empty where it can."""
    try:
        found = os.statvfs(directory)
    except OSError as error:
        return error.strerror or str(error)
    if not os.access(directory, os.W_OK | os.X_OK):
        return "not writable"
    if found.f_flag & os.ST_NOEXEC:
        return "mounted noexec"
    free = found.f_bavail * found.f_frsize
    if free < memory * MIB + SPARE:
        return f"only {free // MIB} MiB free"
    return ""


def interpreter() -> str:
    """The Python that runs process 1; it needs only its standard library."""
    return os.path.realpath(sys.executable)


def visible_paths(path: Sequence[str]) -> list[str]:
    """What must be readable in the guest under its own name, the shortest first."""
    package_root = str(Path(__file__).resolve().parents[2])
    wanted = [
        *(sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix),
        *(str(Path(sys.executable).parent), package_root),
        *(entry for entry in path if Path(entry).exists()),
    ]
    ordered = sorted({str(Path(entry).absolute()) for entry in wanted if entry}, key=len)
    return [entry for entry in ordered if entry != "/"]


def config_for(plan: Plan) -> dict[str, object]:
    """What the agent must know to set the guest up."""
    return {
        "modules": str(plan.kernel.modules),
        "visible": visible_paths(plan.path),
        "writable": list(plan.writable),
        "path": list(plan.path),
        "fingerprint": plan.fingerprint,
    }


def command_line(plan: Plan, work: Path, line: int) -> list[str]:
    """UML's arguments; ``line`` is the file descriptor that becomes /dev/ttyS0."""
    script = Path(__file__).resolve().parent / "guest" / "init.py"
    return [
        str(plan.kernel.program),
        f"mem={plan.memory}M",
        f"uml_dir={work}",
        "umid=uml",
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
        "quiet",
        f"initcall_blacklist={','.join(USELESS_INITCALLS)}",
        *os.environ.get("LVSCTL_KERNEL_OPTIONS", "").split(),
        *("con=null", "con0=null,fd:1", f"ssl0=fd:{line}"),
        f"init={_quoted(interpreter())}",
        *("--", "-I", "-S", _quoted(str(script))),
    ]


def _quoted(word: str) -> str:
    """A word of the kernel's command line. Raises HostError where it cannot be written."""
    if '"' in word:
        raise HostError(f"the kernel's command line cannot express the path {word}")
    return f'"{word}"' if any(c.isspace() for c in word) else word


def spawn(plan: Plan, work: Path) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start UML; returns it (its stdout is the console) and our end of the line.

    It has a session of its own and never sees the user's terminal, which it would leave
    in raw mode. Whatever root in there does, of the host's system it writes nothing.
    Raises HostError.
    """
    ours, theirs = socket.socketpair()
    arguments = command_line(plan, work, theirs.fileno())
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(),),
            preexec_fn=lambda: _confine(work),  # noqa: PLW1509 (the broker has one thread yet)
            start_new_session=True,
            cwd="/",
            umask=0,  # hostfs makes files with it; a command's own umask has been applied then
            env={"TMPDIR": str(work), "PATH": os.defpath, "HOME": "/"},
        )
    except OSError as error:
        raise HostError(f"cannot start {plan.kernel.program}: {error.strerror}") from error
    finally:
        theirs.close()
    return process, ours


def _confine(work: Path) -> None:
    confine.restrict_writes((*writable.trees(), str(work), "/dev/null"))


def default_memory() -> int:
    """MiB for a machine: a gigabyte where the host has it, else what is safe."""
    free = 0
    for candidate in _candidates():
        if not _unfit(candidate, 0):
            free = max(free, shutil.disk_usage(candidate).free // MIB)
    return max(192, min(1024, (free - SPARE // MIB) // 2))
