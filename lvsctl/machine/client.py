"""What the rest of lvsctl calls: start, stop, ask and use the machine.

The machine that is meant is the one that ``LVSCTL_MACHINE`` names (``default``).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lvsctl.errors import HostError, LabError
from lvsctl.machine import frames, relay, runtime_files, writable
from lvsctl.machine.config import ANYTHING, MachineRequest, request_from_environment
from lvsctl.machine.connection import Connection, connect
from lvsctl.machine.runtime_files import RuntimeFiles
from lvsctl.machine.terminal import streams

Emit = Callable[[str], None]
RunKind = Literal["lvsctl", "exec"]

ANSWER_TIMEOUT = 10.0


class MachineStatus(NamedTuple):
    """A running machine. Memory is in MiB, ``uptime`` in seconds.

    ``kind`` and ``accelerator`` are as in ``config.Plan``, ``title`` is what people call the
    kind, ``kernel`` the file that was started.

    ``pid`` is the broker's, whose end ends the machine. ``complaints`` are what could not
    be set up, ``failed_modules`` the kernel modules that did not load, by name.
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
    """The running machine; None where none runs. Clears away a killed one's remains.

    Raises HostError where it runs and does not answer.
    """
    from lvsctl.machine import kinds  # apart, for the usual command does without

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
    """Start the machine unless it runs; returns whether this call started it.

    What ``request`` leaves open the environment may say (``LVSCTL_MACHINE_KIND`` and others).
    ``writable_directories`` (and those in ``LVSCTL_WRITABLE``) can be written by every
    command in the machine. Raises HostError where this host cannot, UsageError for a
    directory that must not be written, and LabError where another kind of machine runs.
    """
    files = runtime_files.for_machine()
    directories = writable.named([*writable_directories, *writable.from_environment()])
    connection, started = _connect_or_start(files, request, directories, emit)
    connection.__exit__(None, None, None)
    return started


def stop() -> bool:
    """End the machine and its labs; returns whether there was one."""
    files = runtime_files.for_machine()
    try:
        connection = connect(files, any_version=True)
    except HostError:  # it does not answer, so it is not asked
        connection = None
    if connection is not None:
        with connection:
            connection.send(frames.STOP)
            connection.wait_for_end(runtime_files.END_TIMEOUT)
    elif not files.record.exists():
        return False
    life_lock = runtime_files.take_life_lock(files, runtime_files.END_TIMEOUT if connection else 0)
    if life_lock is None:
        raise HostError(
            f"the machine {files.name} does not end",
            hint=f"its lock {files.lock} is held by the processes to kill",
        )
    try:
        runtime_files.sweep(files)
        files.lock.unlink(missing_ok=True)
    finally:
        os.close(life_lock)
    return True


def run(
    argv: Sequence[str],
    *,
    kind: RunKind = "lvsctl",
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    tty: bool | None = None,
    writable_directories: Sequence[str] = (),
    emit: Emit = lambda _: None,
) -> int:
    """Run a command in the machine, started if need be, and return its exit status.

    ``lvsctl`` calls lvsctl's main with ``argv``; ``exec`` executes ``argv``. Standard
    streams, terminal, signals and end of input pass through; 128 + N for a command ended
    by signal N. ``cwd`` (default: the current one) can be written by the command unless it
    is a system directory, ``writable_directories`` in addition. ``tty`` forces (True) or
    forbids (False) a terminal. ``emit`` gets lines worth telling the user.

    Raises HostError where the machine cannot start or dies meanwhile.
    """
    _open_missing_streams()
    files = runtime_files.for_machine()
    place = _place(cwd)
    everywhere = writable.named(writable.from_environment())
    connection, started = _connect_or_start(files, ANYTHING, everywhere, emit)
    here = [place] if writable.refusal(place) is None else []
    if started and here and place == str(Path.home().resolve()):  # once is enough
        emit(f"the command may write your home directory {place}: it is the current directory")
    passed = streams(tty)
    request = {
        "kind": kind,
        "argv": list(argv),
        "cwd": place,
        "umask": _umask(),
        "writable": list(
            dict.fromkeys([*here, *everywhere, *writable.named(writable_directories)])
        ),
        "visible": relay.paths_in(argv, place),
        "fingerprint": fingerprint(),
        "env": _environment(os.environ if env is None else env),
        "terminal": [str(stream) for stream in passed.terminal],
    }
    with connection:
        return relay.relay(connection, request, passed)


def _place(cwd: str | None) -> str:
    """Where a command is to run; / where the current directory has been removed."""
    try:
        return str(Path(cwd or ".").resolve())
    except FileNotFoundError:
        return "/"


def fingerprint() -> str:
    """Identifies the state of lvsctl's source files and of the Python packages beside it.

    Changes when a source file is edited, and when a package is installed or removed.
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
    """Where 0, 1 or 2 is closed, the next socket would be taken for a standard stream."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def _umask() -> int:
    # There is no way to ask without setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """The command's environment: the user's, told that it is in the machine already."""
    path = env.get("PATH", os.defpath).split(":")
    system = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
    return {
        **env,
        "PATH": ":".join(dict.fromkeys([*path, *system])),
        "LVSCTL_WHERE": "host",
        "LVSCTL_IN_MACHINE": "1",
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
    """A connection to the machine, and whether it was started for it."""
    request = request.or_else(request_from_environment())
    connection = connect(files)
    if connection is not None:
        return _as_wished(connection, request), False
    # Apart, for the usual command finds its machine running and wants to be quick.
    from lvsctl.machine import launch

    kind, config = launch.planned(request, directories, fingerprint(), emit)
    with runtime_files.starting(files):
        connection = connect(files)
        if connection is not None:  # the command that held the lock has started it
            return _as_wished(connection, request), False
        launch.launch(files, kind, config, emit)
        connection = connect(files)
    if connection is None:
        raise HostError(f"the machine {files.name} ended as soon as it had started")
    return connection, True


def _as_wished(connection: Connection, request: MachineRequest) -> Connection:
    """The connection, if its machine is of the kind and has the kernel that are wished.

    Raises LabError, closing it, where it is another. Memory and CPUs are no matter: a lab
    behaves alike.
    """
    if request.kind is None and request.kernel is None:
        return connection
    from lvsctl.machine import kinds

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
                f"the machine that runs is {title} {found['release']}, not {asked}",
                hint="end it and its labs with: lvsctl machine stop, "
                "or have two: LVSCTL_MACHINE=another",
            )
    except BaseException:
        connection.__exit__(None, None, None)
        raise
    return connection
