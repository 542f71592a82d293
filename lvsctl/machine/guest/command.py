"""The steps of a command's process between fork and exec, or main."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import termios

from lvsctl import linux
from lvsctl.machine.guest import mounts
from lvsctl.machine.guest.boot import strings

NOT_FOUND = 127
NOT_EXECUTABLE = 126
HOST_CANNOT = 69
BUG = 70

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Blocked in a new child until the command has its own handlers, so that none is lost."""


class Request:
    """A client's request to run a command.

    ``kind`` is ``exec`` (execute argv) or ``lvsctl`` (call lvsctl's main with argv).
    ``writable`` are directories that the command may write; ``visible`` are paths of the host
    that it must be able to read. ``terminal`` lists which of the streams 0, 1 and 2 are the
    terminal, whose size is ``size`` (rows, columns). ``fingerprint`` identifies the client's
    source code.
    """

    def __init__(self, fields: dict[str, object]) -> None:
        self.kind = str(fields["kind"])
        self.argv = strings(fields["argv"])
        self.cwd = str(fields["cwd"])
        self.umask = int(str(fields["umask"]))
        self.writable = strings(fields["writable"])
        self.visible = strings(fields["visible"])
        self.fingerprint = str(fields["fingerprint"])
        env = fields["env"]
        self.env = dict(env) if isinstance(env, dict) else {}
        self.terminal = tuple(int(stream) for stream in strings(fields["terminal"]))
        rows, columns = strings(fields["size"])
        self.size = (int(rows), int(columns))


def become(request: Request, streams: tuple[int, int, int]) -> None:
    """Turn this new child into the command's process: session, streams, directories.

    ``streams`` become 0, 1 and 2. Problems with the directories are reported on the command's
    standard error and end the process.
    """
    if os.getsid(0) != os.getpid():
        os.setsid()
    # dup2 onto 0..2 must not overwrite a stream that is yet to be moved.
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in streams]
    for fd in streams:
        os.close(fd)
    for target, fd in enumerate(safe):
        os.dup2(fd, target)
        os.close(fd)
    for stream in request.terminal:
        fcntl.ioctl(stream, termios.TIOCSCTTY, 0)
        break
    os.umask(request.umask)
    try:
        _mount_directories(request)
        os.chdir(request.cwd)
    except OSError as error:
        print_error(f"cannot work in {request.cwd}: {error.strerror}")
        os._exit(BUG)


def _mount_directories(request: Request) -> None:
    linux.unshare(linux.CLONE_NEWNS)
    for path in request.visible:
        mounts.show(path)
    for directory in request.writable:
        mounts.make_writable(directory)
    if mounts.hidden(request.cwd) and not os.path.isdir(request.cwd):
        mounts.show(request.cwd)
    mounts.hide_export()


def fork() -> int:
    """os.fork(), in whose child the signals that end a command wait (``ENDING``)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def print_refusal(stream: int, error: OSError) -> None:
    """Print on a command's standard error that no process could be created for it."""
    text = (
        f"lvsctl: the machine cannot start the command: {error.strerror}: its memory or its "
        "processes are used up\n  → stop it and its labs: lvsctl machine stop\n"
    )
    with contextlib.suppress(OSError):
        os.write(stream, text.encode())


def restore_signals() -> None:
    """Reset the signals that Python and process 1 have changed."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def execute(request: Request) -> None:
    """Replace this process by the command; end the process if that is impossible."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    try:
        os.execvpe(request.argv[0], request.argv, request.env)
    except FileNotFoundError:
        print_error(f"{request.argv[0]}: command not found in the machine")
        os._exit(NOT_FOUND)
    except OSError as error:
        print_error(f"{request.argv[0]}: {error.strerror}")
        os._exit(NOT_EXECUTABLE)


def print_error(text: str) -> None:
    """Print one line on the command's standard error."""
    os.write(2, f"lvsctl: {text}\n".encode(errors="surrogateescape"))


def replace_standard_streams() -> None:
    """Reopen sys.stdin, stdout and stderr with the buffering that fits the new 0, 1 and 2."""
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = open(
        1,
        "w",
        encoding="utf-8",
        errors="surrogateescape",
        closefd=False,
        buffering=1 if os.isatty(1) else -1,
    )
    sys.stderr = open(
        2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1
    )
