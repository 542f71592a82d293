"""Find, start and end the processes of a lab.

A lab's processes are its daemons, each of which locks a pid file for as long as it
lives (asking who holds a lock gives a pid that cannot be a stale one), and every
process in one of its namespaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NoReturn, Self

from lvsctl import linux
from lvsctl.errors import HostError, KernelError, LabError, LvsctlError
from lvsctl.kernel import paths, worker
from lvsctl.kernel.paths import describe_os_error, wrap_os_errors

Ready = Callable[[str | None], None]
"""What a daemon calls once others may come to it (None), or with the reason why they cannot."""

RESPONDER = "responder"
"""The name of the daemon that answers for the real servers."""

START_SECONDS = 60.0
"""How long a daemon may take to get ready; long, for twenty labs at once in a busy machine."""
TERMINATE_SECONDS = 2.0
"""How long a process may take to end after SIGTERM before it is killed."""
GRACE_SECONDS = 0.15
"""A command that ends with an error within this time has failed to start."""
LAST_LINES = 10
NOBODY = 65534
"""The user and group that own nothing."""

_FLOCK = struct.Struct("hhqqi4x")
"""struct flock on 64-bit Linux: type, whence, start, length, pid."""
_ERRORS: dict[str, type[LvsctlError]] = {
    kind.__name__: kind for kind in (LvsctlError, HostError, LabError, KernelError)
}


def holder(file: Path) -> int:
    """Return the pid of the process that holds the lock on ``file``; 0: none."""
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        return int(pid) if kind != fcntl.F_UNLCK and pid > 0 else 0
    finally:
        os.close(fd)


def daemons(lab: str) -> dict[str, int]:
    """Return the running daemons of ``lab``: name to pid."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for file in sorted(paths.of(lab).pids.glob("*.pid")):
            if pid := holder(file):
                found[file.stem] = pid
    return found


def pids_in(namespaces: Iterable[Path]) -> set[int]:
    """Return the pids of the processes in any of ``namespaces``, files as for ip-netns(8).

    Processes in the namespace of process 1 are the system's, even where it is bound to one of
    our names: they are left out.
    """
    return set(namespaces_of_pids(namespaces))


def namespaces_of_pids(namespaces: Iterable[Path]) -> dict[int, Path]:
    """Return in which of ``namespaces`` each process is that is in one of them; see ``pids_in``."""
    wanted: dict[tuple[int, int], Path] = {}
    for file in namespaces:
        with contextlib.suppress(OSError):
            status = file.stat()
            wanted[status.st_dev, status.st_ino] = file
    with contextlib.suppress(OSError):
        status = os.stat("/proc/1/ns/net")  # noqa: PTH116 (as below)
        wanted.pop((status.st_dev, status.st_ino), None)
    found: dict[int, Path] = {}
    if not wanted:
        return found
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):  # it ended, or is not ours to look at
                status = os.stat(f"/proc/{name}/ns/net")  # noqa: PTH116 (a third of the time)
                place = wanted.get((status.st_dev, status.st_ino))
                if place is not None:
                    found[int(name)] = place
    return found


def name_and_state(pid: int) -> tuple[str, str]:
    """Return a process's name and the letter of its state (proc_pid_stat(5)); empty: it ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return "", ""
    start, _, rest = status.rpartition(")")
    return start.partition("(")[2], rest.split()[0]


def of_lab(lab: str) -> set[int]:
    """Return the pids of all processes of ``lab``, without this one and its ancestors."""
    files: list[Path] = []
    with contextlib.suppress(OSError):
        files = list(paths.of(lab).namespaces.iterdir())
    return (set(daemons(lab).values()) | pids_in(files)) - ancestors()


def ancestors() -> set[int]:
    """Return this process and its ancestors, which `lvsctl down` in a node's shell must not end."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            break
        pid = int(status.rpartition(")")[2].split()[1])
    return found


def terminate(find: Callable[[], Collection[int]], seconds: float = TERMINATE_SECONDS) -> int:
    """End the processes: SIGTERM, and SIGKILL for what lives on after ``seconds``.

    ``find`` returns their ids. It is called again when a descriptor of each is open, because an
    id may have been reused before: a process that is not found again is left alone.
    Returns how many there were. When it returns, none is left (zombies aside).
    """
    handles: dict[int, int] = {}
    try:
        for pid in find():
            with contextlib.suppress(ProcessLookupError):
                handles[os.pidfd_open(pid)] = pid
        still = set(find()) if handles else set()
        living = {handle: pid for handle, pid in handles.items() if pid in still}
        ended = len(living)
        for sign, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
            for handle in living:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, sign)
            living = dict.fromkeys(_still_alive(living, patience), 0)
        return ended
    finally:
        for handle in handles:
            os.close(handle)


def _still_alive(handles: Iterable[int], seconds: float) -> set[int]:
    """Return the pidfds whose processes still run after ``seconds``."""
    living = set(handles)
    deadline = time.monotonic() + seconds
    poll = select.poll()
    for handle in living:
        poll.register(handle, select.POLLIN)
    while living:
        ended = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ended:
            break
        for handle, _ in ended:
            poll.unregister(handle)
            living.discard(handle)
    return living


def stop_daemon(lab: str, name: str) -> None:
    """End one daemon of ``lab``; nothing happens where it does not run."""
    file = paths.of(lab).pids / f"{name}.pid"
    terminate(lambda: [pid] if (pid := holder(file)) else [])


class DaemonStart:
    """A daemon that is starting. It ends by itself if ``ready`` is not called."""

    def __init__(self, lab: str, name: str, main: Callable[[Ready], None]) -> None:
        self._lab, self._name = lab, name
        with wrap_os_errors(f"start the {name} of lab {lab}"):
            paths.of(lab).pids.mkdir(parents=True, exist_ok=True)
            paths.of(lab).logs.mkdir(parents=True, exist_ok=True)
        self._reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            self._child = worker.fork()
            if self._child == 0:
                _detach(lambda: _serve(lab, name, main, writing))
        except BaseException:
            os.close(self._reading)
            raise
        finally:
            os.close(writing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pipe; a daemon that was not waited for fails to report, and ends."""
        os.close(self._reading)
        self._collect()

    def _collect(self) -> None:
        """Wait for the process that started the daemon, if it was not waited for."""
        if self._child:
            # A signal's handler may have raised after an earlier waitpid(2) had returned.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, 0)
        self._child = 0

    def ready(self) -> int:
        """Wait until ``main`` has called Ready; return the daemon's pid.

        Raises what it raised before it was ready, or KernelError with the end of the log
        where it just ended.
        """
        self._collect()
        answer = _read_line(self._reading, time.monotonic() + START_SECONDS)
        if answer is None or answer == "":
            stop_daemon(self._lab, self._name)
            how = "did not get ready" if answer is None else "ended before it was ready"
            raise KernelError(
                f"the {self._name} of lab {self._lab} {how}" + last_lines(self._lab, self._name)
            )
        said = json.loads(answer)
        if "error" in said:
            kind = _ERRORS.get(said["error"], KernelError)
            raise kind(said["message"], hint=said["hint"])
        return int(said["pid"])


def daemon(lab: str, name: str, main: Callable[[Ready], None]) -> int:
    """Run ``main`` in a process of its own that outlives this one; return its pid.

    Returns once ``main`` has called Ready. Its standard output and errors go to the
    lab's log file of that ``name``. Raises what ``DaemonStart.ready`` raises.
    """
    with DaemonStart(lab, name, main) as beginning:
        return beginning.ready()


def _read_line(fd: int, deadline: float) -> str | None:
    """Read a line from the pipe ``fd``; None: it did not come in time."""
    data = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not data.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return None
        more = os.read(fd, 1 << 16)
        if not more:
            break
        data += more
    return data.decode()


def _detach(body: Callable[[], None]) -> NoReturn:
    """In a child: run ``body`` in a grandchild with a session of its own, and end."""
    status = 1
    try:
        os.setsid()
        if worker.fork() == 0:
            for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(sign, signal.SIG_DFL)
            body()
        status = 0
    except BaseException:  # noqa: BLE001 (nothing may return into the parent's code)
        with contextlib.suppress(BaseException):
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(status)


def _serve(lab: str, name: str, main: Callable[[Ready], None], writing: int) -> None:
    """In the grandchild: run the daemon."""

    told = False

    def say(**words: object) -> None:
        nonlocal told
        if told:
            return
        told = True
        try:
            os.write(writing, json.dumps(words).encode() + b"\n")
        except BrokenPipeError:  # the command that started the lab was killed
            os._exit(1)
        os.close(writing)

    def ready(problem: str | None) -> None:
        if problem is None:
            say(pid=os.getpid())
        else:
            say(error="KernelError", message=problem, hint="")

    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    gc.freeze()  # the command's objects stay, and their pages stay shared
    gc.enable()
    try:
        lock = os.open(paths.of(lab).pids / f"{name}.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever ends the lab asks who holds it
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        writing, lock = _keep_only(writing, lock, log=paths.of(lab).logs / f"{name}.log")
        os.chdir("/")
        main(ready)
    except LvsctlError as error:
        if told:
            raise  # the command has gone on: into the log
        say(error=type(error).__name__, message=error.message, hint=error.hint)
    except OSError as error:
        if not paths.of(lab).pids.is_dir():  # removed meanwhile: nothing of this one is wrong
            say(error="LabError", message=f"lab {lab} was removed while its {name} started",
                hint="")  # fmt: skip
            return
        with contextlib.suppress(OSError):  # its log may be what cannot be written
            traceback.print_exc()
        said = describe_os_error(error)
        say(error="HostError" if said.hint else "KernelError",
            message=f"{name}: {said.message}", hint=said.hint)  # fmt: skip
    with contextlib.suppress(OSError):
        sys.stderr.flush()


def _keep_only(writing: int, lock: int, log: Path) -> tuple[int, int]:
    """Close every other descriptor: the command's locks and sockets must not stay open here."""
    writing, lock = (
        fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) if fd < 3 else fd for fd in (writing, lock)
    )
    redirect(log)
    sys.stdout, sys.stderr = (  # whatever the command had wrapped around its own
        os.fdopen(fd, "w", buffering=1, closefd=False) for fd in (1, 2)
    )
    low = 3
    for fd in sorted((writing, lock)):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
    return writing, lock


def redirect(log: Path) -> None:
    """Redirect standard input from /dev/null, output and errors to the end of ``log``."""
    null = os.open("/dev/null", os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    for target, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, target)
    for fd in (null, output):
        if fd > 2:
            os.close(fd)


def last_lines(lab: str, name: str, count: int = LAST_LINES) -> str:
    """Return the end of a log, indented, to put under an error; empty without a log."""
    try:
        text = (paths.of(lab).logs / f"{name}.log").read_text(errors="replace")
    except OSError:
        return ""
    lines = text.strip().splitlines()[-count:]
    return "".join(f"\n    {line}" for line in lines)


def give_up_root() -> None:
    """Become the user nobody, without any capability, for good; without root nothing changes.

    Sockets and files that are open stay open. In a user namespace without that user, root of
    that namespace remains, and cannot gain more.
    """
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # EINVAL: no such user here
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
