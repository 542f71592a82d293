"""The interface of the machine to the rest of lvsctl: start, stop, status, run.

``LVSCTL_MACHINE`` names the machine (``default``).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lvsctl.errors import HostError, LabError, UsageError
from lvsctl.machine import config, directories, frames, records, relay, runtime_files
from lvsctl.machine.config import ANYTHING, MachineRequest, request_from_environment
from lvsctl.machine.connection import Connection, connect
from lvsctl.machine.relay import standard_streams
from lvsctl.machine.runtime_files import RuntimeFiles

Emit = Callable[[str], None]
RunKind = Literal["lvsctl", "exec"]

ANSWER_TIMEOUT = 10.0

MAX_REQUEST = frames.MAX_PAYLOAD // 2
"""Bytes of a request: arguments, environment and directories. Linux allows a little less too."""


class MachineStatus(NamedTuple):
    """A running machine. Memory is in MiB, ``uptime`` in seconds.

    ``kind`` and ``accelerator`` are as in ``config.MachineConfig``, ``title`` is the
    kind's name for people, ``kernel`` the file that was started.

    ``pid`` is the broker's: if it ends, the machine does. ``complaints`` list what could not be
    set up or enforced, ``failed_modules`` the kernel modules that did not load, with reasons.
    """

    name: str
    pid: int
    release: str
    uptime: float
    kind: str
    title: str
    kernel: Path
    accelerator: str
    cpus: int
    memory: int
    memory_available: int
    commands: int
    socket: Path
    writable: tuple[str, ...]
    complaints: tuple[str, ...]
    failed_modules: Mapping[str, str]


def status() -> MachineStatus | None:
    """Return the running machine; None if none runs. Removes the remains of a killed one.

    Raises HostError if it runs and does not respond.
    """
    from lvsctl.machine import kinds  # most commands find their machine running and need no kind

    files = runtime_files.for_machine()
    connection = _connect_or_sweep(files)
    if connection is None:
        return None
    with connection:
        connection.send(frames.STATUS)
        host = json.loads(connection.wait_for(frames.STATUS, ANSWER_TIMEOUT))
        connection.send(frames.PING)
        guest = json.loads(connection.wait_for(frames.PONG, ANSWER_TIMEOUT))
    return MachineStatus(
        name=files.name,
        pid=host["pid"],
        release=host["release"],
        uptime=host["uptime"],
        kind=host["kind"],
        title=kinds.KINDS[host["kind"]].title,
        kernel=Path(host["kernel"]),
        accelerator=host["accelerator"],
        cpus=host["cpus"],
        memory=host["memory"],
        memory_available=guest["memory_available_kib"] // 1024,
        commands=guest["commands"],
        socket=files.socket,
        writable=tuple(host["writable"]),
        complaints=tuple(host["complaints"]),
        failed_modules=host["failed_modules"],
    )


def start(
    request: MachineRequest = ANYTHING,
    *,
    writable_directories: Sequence[str] = (),
    emit: Emit = lambda _: None,
) -> bool:
    """Start the machine unless it is running; return whether this call started it.

    The environment completes ``request`` (``LVSCTL_MACHINE_KIND`` and others).
    ``writable_directories`` (and those in ``LVSCTL_WRITABLE``) can be written by every
    command in the machine. Raises HostError if this host cannot start it, UsageError for a
    directory that must not be written, and LabError if a machine of another kind is running.
    """
    files = runtime_files.for_machine()
    directories = config.writable_directories(
        [*writable_directories, *config.writable_from_environment()]
    )
    connection, started = _connect_or_start(files, request, directories, emit)
    connection.__exit__(None, None, None)
    return started


def stop() -> bool:
    """Stop the machine and its labs; return whether one was running, or starting.

    If it does not stop by itself, its recorded processes are killed. Raises HostError if they do
    not end.
    """
    files = runtime_files.for_machine()
    patience = runtime_files.END_TIMEOUT
    try:
        connection = connect(files, any_version=True)
    except HostError:  # it does not respond: killed below
        connection, patience = None, 0.0
    if connection is not None:
        with connection:
            connection.send(frames.STOP)
            connection.wait_for_end(runtime_files.END_TIMEOUT)
    elif not (files.record.exists() or files.lock.exists()):
        return False
    elif patience:  # it is starting, or has been killed
        _end_background(files, signal.SIGTERM)
    life_lock = runtime_files.take_life_lock(files, patience)
    if life_lock is None:
        _end_background(files, signal.SIGKILL)
        life_lock = runtime_files.take_life_lock(files, records.KILL_TIMEOUT)
    if life_lock is None:
        raise HostError(
            f"the machine {files.name} does not stop, and its processes are not recorded",
            hint=f"list those that hold its lock: fuser -v {files.lock}",
        )
    try:
        runtime_files.sweep(files)
        files.lock.unlink(missing_ok=True)
    finally:
        os.close(life_lock)
    return True


def _end_background(files: RuntimeFiles, number: signal.Signals) -> None:
    found = records.read(files.record)
    if found is not None:
        records.end_background(found, number)


def run(
    argv: Sequence[str],
    *,
    kind: RunKind = "lvsctl",
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    tty: bool | None = None,
    writable_directories: Sequence[str] = (),
    visible: Sequence[str] = (),
    emit: Emit = lambda _: None,
) -> int:
    """Run a command in the machine, started if necessary, and return its exit status.

    ``lvsctl`` calls lvsctl's main with ``argv``; ``exec`` executes ``argv``. Standard
    streams, terminal, signals and end of input are passed through; the status is 128 + N for a
    command ended by signal N. The command may write ``writable_directories`` and ``cwd``
    (default: the current directory) unless this is a system directory. ``tty`` forces (True) or
    forbids (False) a terminal. ``visible`` are words that may name files in the host's /tmp, as
    those of ``argv`` do. ``emit`` receives messages for the user.

    Raises HostError if the machine cannot start or dies meanwhile.
    """
    _open_missing_streams()
    files = runtime_files.for_machine()
    place = _place(cwd)
    everywhere = config.writable_directories(config.writable_from_environment())
    connection, started = _connect_or_start(files, ANYTHING, everywhere, emit)
    here = [place] if config.why_not_writable(place) is None else []
    home = directories.home_directory()
    if started and here and home and place == str(home.resolve()):  # printed once a machine
        emit(f"the command can write to your home directory {place}: it is the current directory")
    passed = standard_streams(tty)
    request = {
        "kind": kind,
        "argv": list(argv),
        "cwd": place,
        "umask": _umask(),
        "writable": list(
            dict.fromkeys([*here, *everywhere, *config.writable_directories(writable_directories)])
        ),
        "visible": relay.paths_in([*argv, *visible], place, os.environ.get("PATH", "")),
        "fingerprint": fingerprint(),
        "env": _environment(os.environ if env is None else env),
        "terminal": [str(stream) for stream in passed.terminal],
    }
    size = len(json.dumps(request))
    with connection:
        if size > MAX_REQUEST:
            raise UsageError(
                f"the command's arguments and environment have {size // 1024} KiB; "
                f"the machine accepts {MAX_REQUEST // 1024} KiB",
                hint="pass large input as a file or through standard input",
            )
        return relay.relay(connection, request, passed)


def _place(cwd: str | None) -> str:
    """Return a command's working directory; / if the current directory has been removed."""
    try:
        return str(Path(cwd or ".").resolve())
    except FileNotFoundError:
        return "/"


def fingerprint() -> str:
    """Return a string that changes with lvsctl's source files and the Python packages beside it.

    A source file was edited, or a package installed or removed.
    """
    root = Path(__file__).resolve().parents[1]
    newest, count = 0, 0
    pending = [str(root)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    if entry.name != "__pycache__":
                        pending.append(entry.path)
                elif entry.name.endswith(".py"):
                    count += 1
                    newest = max(newest, entry.stat().st_mtime_ns)
    packages = [Path(entry) for entry in sys.path if entry.endswith("-packages")]
    changed = [str(entry.stat().st_mtime_ns) for entry in packages if entry.is_dir()]
    return ":".join([str(count), str(newest), *changed])


def _open_missing_streams() -> None:
    """Open /dev/null for closed standard streams: the next socket would take their number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


ACTIVATE_VARIABLE = "LVSCTL_ACTIVATE"


def activation(env: Mapping[str, str]) -> str:
    """Return what to type so that ``lvsctl`` is a command of the shell; empty if it is one."""
    if shutil.which("lvsctl", path=env.get("PATH", os.defpath)):
        return ""
    script = Path(sys.prefix, "bin", "activate")
    if not script.is_file():
        return f"alias lvsctl={shlex.quote(f'{sys.executable} -m lvsctl')}"
    with contextlib.suppress(OSError, ValueError):
        script = Path(script.relative_to(Path.cwd()))
    return f". {shlex.quote(str(script))}"


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the user's environment, changed for lvsctl in the machine."""
    path = env.get("PATH", os.defpath).split(":")
    system = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
    return {
        **env,
        "PATH": ":".join(dict.fromkeys([*path, *system])),
        "LVSCTL_WHERE": "host",
        "LVSCTL_IN_MACHINE": "1",
        ACTIVATE_VARIABLE: activation(env),
    }


def _connect_or_sweep(files: RuntimeFiles) -> Connection | None:
    connection = connect(files)
    if connection is None:
        runtime_files.sweep_if_dead(files)
    return connection


def _connect_or_start(
    files: RuntimeFiles,
    request: MachineRequest,
    directories: Sequence[str],
    emit: Emit,
) -> tuple[Connection, bool]:
    """Return a connection to the machine, and whether the machine was started for it."""
    request = request.or_else(request_from_environment())
    connection = connect(files)
    if connection is not None:
        return _check_request(connection, request), False
    from lvsctl.machine import launch  # only if no machine is running

    kind, config = launch.choose_config(request, directories, fingerprint(), emit)
    with runtime_files.starting(files):
        connection = connect(files)
        if connection is not None:  # the command that held the lock has started it
            return _check_request(connection, request), False
        launch.launch(files, kind, config, emit)
        connection = connect(files)
    if connection is None:
        raise HostError(f"the machine {files.name} ended right after its start")
    return connection, True


def _check_request(connection: Connection, request: MachineRequest) -> Connection:
    """Return the connection if its machine has the requested kind and kernel.

    Otherwise closes it and raises LabError. Memory and CPUs may differ: labs behave the same.
    """
    if request.kind is None and request.kernel is None:
        return connection
    from lvsctl.machine import kinds  # only if a kind was requested

    try:
        connection.send(frames.STATUS)
        found = json.loads(connection.wait_for(frames.STATUS, ANSWER_TIMEOUT))
        kind = kinds.choose_kind(request)
        kernel = kind.find(request.kernel)
        same = kind.name == found["kind"] and (
            request.kernel is None or (kernel and str(kernel.program) == found["kernel"])
        )
        if not same:
            asked = " ".join(filter(None, [request.kind, request.kernel]))
            title = kinds.KINDS[found["kind"]].title
            raise LabError(
                f"the running machine is {title} {found['release']}, not {asked}",
                hint="stop it and its labs: lvsctl machine stop, "
                "or use a second one: LVSCTL_MACHINE=another",
            )
    except BaseException:
        connection.__exit__(None, None, None)
        raise
    return connection
