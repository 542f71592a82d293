"""The choice of the kernel in which a command runs: the host's, or the machine's.

A command decorated with ``in_lab_kernel`` runs where the labs are. For the machine, its command
line is forwarded to the lvsctl inside.
"""

from __future__ import annotations

import fcntl
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from lvsctl.cli.failure import say
from lvsctl.errors import HostError, LabError, UsageError
from lvsctl.kernel import probe
from lvsctl.machine import client, connection, runtime_files
from lvsctl.output import safe_files
from lvsctl.topology import shipped

Run = Callable[..., int | None]
"""A command's own function: keywords in, an exit status out (None: success)."""

SHARED_PREFIX = "lvsctl-captures-"
"""The name of the directory that commands share for captures begins with this."""

WHERE_VARIABLE = "LVSCTL_WHERE"
"""The environment variable with the default of ``--where``."""


class Where(StrEnum):
    """The values of ``--where``."""

    AUTO = "auto"
    HOST = "host"
    MACHINE = "machine"


class ForwardRequest(NamedTuple):
    """The request to the lvsctl in the machine: its command line, and perhaps standard input.

    ``writes`` is a directory that the command writes. It is created for the command, and removed
    again if it is new and stays empty. ``visible`` are words of other commands that it starts.
    """

    words: list[str]
    stdin: bytes | None = None
    writes: Path | None = None
    visible: Sequence[str] = ()


def in_lab_kernel(
    *,
    starts: bool = False,
    needs_root: bool = True,
    stdin: bool = False,
    prepare: Callable[..., ForwardRequest] | None = None,
    without_machine: Run | None = None,
    anywhere: Callable[..., bool] | None = None,
) -> Callable[[Run], PlacedCommand]:
    """Decorate a command that runs where the labs are.

    The command has the parameters ``ctx`` and ``where`` (``options.Placement``), which are read
    here. The functions below receive its other arguments.

    ``starts``: start the machine if it is needed. Otherwise, if no machine runs,
    ``without_machine`` answers; by default, that no lab is running.
    ``needs_root``: on the host's kernel the command needs root.
    ``stdin``: forward standard input.
    ``prepare``: gets the command line too; checks the arguments before a machine is started, and
    returns what to forward.
    ``anywhere``: returns whether the command, with these arguments, needs no lab's kernel.
    """

    def decorate(command: Run) -> PlacedCommand:
        return PlacedCommand(
            command,
            starts=starts,
            needs_root=needs_root,
            stdin=stdin,
            prepare=prepare,
            without_machine=without_machine,
            anywhere=anywhere,
        )

    return decorate


class PlacedCommand:
    """A command decorated by ``in_lab_kernel``; Typer reads the command's own signature."""

    def __init__(
        self,
        command: Run,
        *,
        starts: bool,
        needs_root: bool,
        stdin: bool,
        prepare: Callable[..., ForwardRequest] | None,
        without_machine: Run | None,
        anywhere: Callable[..., bool] | None,
    ) -> None:
        functools.update_wrapper(self, command)
        self._command = command
        self._starts, self._needs_root, self._stdin = starts, needs_root, stdin
        self._prepare, self._without_machine, self._anywhere = prepare, without_machine, anywhere

    def __call__(self, **parameters: Any) -> int | None:
        """Run the command here, or forward it to the machine."""
        words: list[str] = parameters["ctx"].obj
        where: Where = parameters["where"]
        arguments = {key: parameters[key] for key in parameters.keys() - {"ctx", "where"}}
        if self._anywhere and self._anywhere(**arguments):
            return self._command(**parameters)
        reason = _reason_for_machine(where)
        if reason is None:
            if self._needs_root:
                require_root(words)
            return self._command(**parameters)
        request = self._prepare(words, **arguments) if self._prepare else ForwardRequest(words)
        if not self._starts and not machine_is_running():
            return (self._without_machine or _no_lab_is_running)(**arguments)
        explained = self._starts and where is Where.AUTO
        with _directory_for(request.writes) as writable:
            return forward(
                request.words,
                stdin=self._stdin,
                given=request.stdin,
                reason=reason if explained else "",
                writable=writable,
                visible=request.visible,
            )


@contextmanager
def _directory_for(directory: Path | None) -> Iterator[tuple[str, ...]]:
    """Create the directory that the command in the machine writes; remove it if it stays empty."""
    if directory is None:
        yield ()
        return
    new = not directory.exists()
    try:
        fd = _shared(directory)
        safe_files.nofollow(directory)  # another user may have made a link since ``prepare``
    except FileExistsError:
        raise UsageError(f"{directory} is a file, not a directory") from None
    except OSError as error:
        raise HostError(f"cannot create the directory {directory}: {error.strerror}") from error
    try:
        yield (str(directory),)
    finally:
        if new or directory.name.startswith(SHARED_PREFIX):
            # Unless another command uses it, or there is something in it.
            with suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                directory.rmdir()
        os.close(fd)


def _shared(directory: Path) -> int:
    """Create a directory and hold a shared lock on it, so that no other command removes it."""
    while True:
        directory.mkdir(mode=0o775, parents=True, exist_ok=True)
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # removed by the command that created it, which has ended
        with suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), directory.stat()):
                return fd
        os.close(fd)


def inside_machine() -> bool:
    """Return whether this process runs in the machine."""
    return bool(os.environ.get("LVSCTL_IN_MACHINE"))


def activation() -> str:
    """Return what to type so that ``lvsctl`` is a command of the shell; empty if it is one.

    In the machine, whose PATH is another, the host's answer is in the environment.
    """
    if inside_machine():
        return os.environ.get(client.ACTIVATE_VARIABLE, "")
    return client.activation(os.environ)


def _reason_for_machine(where: Where) -> str | None:
    """Return why the command runs in the machine; None if it runs here."""
    if inside_machine() or where is Where.HOST:
        return None
    if where is Where.MACHINE:
        return "as requested"
    return why_not_here()


def why_not_here() -> str | None:
    """Return why labs cannot run on this host's kernel; None if they can."""
    if not probe.has_ipvs() and not probe.has_module("ip_vs"):
        return f"this kernel ({os.uname().release}) has no IPVS"
    if not probe.has_root():
        return "labs on this kernel need root"
    return None if probe.has_ipvs() else "IPVS cannot be loaded into this kernel"


def require_root(words: Sequence[str]) -> None:
    """Raise HostError if this process can neither create nor enter network namespaces."""
    if not probe.has_root():
        line = " ".join(["lvsctl", *words])
        raise HostError(
            "labs on this host's kernel need root", hint=f"sudo {line}, or --where machine"
        )


def _no_lab_is_running(**arguments: Any) -> NoReturn:
    """Raise LabError: no machine is running, hence no lab."""
    lab = arguments.get("lab")
    if lab in shipped.names():
        raise LabError(f"lab {lab} is not running", hint=f"start it: lvsctl up {lab}")
    if lab:
        raise LabError(f"no lab is running, and none is called {lab}", hint="lvsctl up dr")
    raise LabError("no lab is running", hint="start one: lvsctl up dr")


def machine_is_running() -> bool:
    """Return whether a machine is running. Never starts one."""
    found = connection.connect(runtime_files.for_machine())
    if found is None:
        return False
    with found:
        return True


def forward(
    words: list[str],
    *,
    stdin: bool = False,
    given: bytes | None = None,
    reason: str = "",
    writable: Sequence[str] = (),
    visible: Sequence[str] = (),
) -> int:
    """Run ``lvsctl WORDS`` in the machine, started if necessary; return its exit status.

    ``given`` takes the place of standard input. Without it, and without ``stdin``, the command
    has none, so that a `while read` loop around lvsctl keeps its input. ``reason``, if any, is
    why the machine is used: it is printed before the first message.
    """
    before = f"{reason}: " if reason else ""

    def emit(text: str) -> None:
        nonlocal before
        say(f"{before}{text}")
        before = ""

    if reason and machine_is_running():
        emit("using the throwaway kernel (lvsctl machine)")
    sys.stdout.flush()
    if given is not None or not stdin:
        replace_stdin(given or b"")
    return client.run(
        words, kind="lvsctl", emit=emit, writable_directories=writable, visible=visible
    )


def replace_stdin(content: bytes) -> None:
    """Make this process and its children read ``content`` from standard input."""
    with open(os.memfd_create("lvsctl-stdin"), "w+b") as file:  # noqa: PTH123 (a descriptor)
        file.write(content)
        file.seek(0)
        os.dup2(file.fileno(), 0)


def refuse_inside(action: str) -> None:
    """Raise UsageError in the machine, for an action that only the host can do."""
    if inside_machine():
        raise UsageError(f"cannot {action} from inside the machine", hint="leave it first: exit")
