"""Collect the state of real hosts: by ssh, or from files that were collected before; and frames."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from lvsctl.errors import HostError, LvsctlError, UsageError, legible, quoted
from lvsctl.formats.hosts.document import LARGEST, script
from lvsctl.formats.hosts.frames import READY
from lvsctl.formats.hosts.inventory import InventoryHost
from lvsctl.formats.hosts.reader import HostState, read_host

_AT_ONCE = 16
_ERRORS = 1 << 16
"""Bytes of a program's error messages that are kept."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A host by its name in the inventory, or by its file's: its state, or why there is none."""

    name: str
    state: HostState | None
    problem: str = ""


def from_directory(directory: Path) -> tuple[Asked, ...]:
    """Read every file of a directory; its name without a suffix is the host's.

    Raises UsageError if the directory cannot be read, or is empty.
    """
    try:
        files = sorted(one for one in directory.iterdir() if not one.name.startswith("."))
    except OSError as error:
        raise UsageError(f"cannot read {quoted(str(directory))}: {error.strerror}") from None
    if not files:
        raise UsageError(
            f"{quoted(str(directory))} is empty",
            hint="lvsctl collect > collect.sh && ssh HOST sh -s <collect.sh >DIR/HOST.txt",
        )
    return tuple(_from_file(file) for file in files)


def _from_file(file: Path) -> Asked:
    name = file.stem if file.suffix in (".txt", ".out", ".log") else file.name
    try:
        with file.open("rb") as stream:
            return Asked(name, read_host(stream.read(LARGEST + 1), str(file)))
    except OSError as error:
        return Asked(name, None, f"{file}: {error.strerror}")
    except LvsctlError as error:
        return Asked(name, None, error.message)


def by_ssh(hosts: Iterable[InventoryHost], seconds: float, *, sudo: bool) -> tuple[Asked, ...]:
    """Run the script on hosts, several at a time; each has ``seconds``.

    Raises HostError if this host has no ssh.
    """

    def ask(host: InventoryHost) -> Asked:
        return _ask(host, seconds, sudo=sudo)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(pool.map(ask, hosts))


def command(host: InventoryHost, seconds: float, *, sudo: bool) -> tuple[str, ...]:
    """Return the command that runs a script from standard input on a host."""
    return (
        *("ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={max(1, int(seconds))}"),
        *(("-p", str(host.port)) if host.port else ()),
        *(("-l", host.user) if host.user else ()),
        *("--", host.address, "sudo -n sh -s" if sudo else "sh -s"),
    )


def _started(host: InventoryHost, seconds: float, *, sudo: bool) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command(host, seconds, sudo=sudo),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours; and its helpers end with it
        )
    except FileNotFoundError:
        raise HostError("ssh is not installed", hint="apt-get install openssh-client") from None


def _ask(host: InventoryHost, seconds: float, *, sudo: bool) -> Asked:
    child = _started(host, seconds, sudo=sudo)
    late = threading.Event()

    def end() -> None:
        late.set()
        _end(child)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        output, errors = _conversation(child)
    finally:
        timer.cancel()
        _end(child)
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was never sent
                    stream.close()
    said = legible(errors.decode(errors="replace")).strip().split("\n")[-1][:200]
    if late.is_set():
        return Asked(host.name, None, f"no answer within {seconds:g} s{_after(said)}")
    if child.returncode and not output.strip():
        return Asked(host.name, None, said or f"ssh ended with status {child.returncode}")
    try:
        return Asked(host.name, read_host(output, host.name))
    except LvsctlError as error:
        return Asked(host.name, None, f"{error.message}{_after(said)}")


def _after(said: str) -> str:
    return f": {said}" if said else ""


def _conversation(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Send the script; return the output and the error messages, as much as is ever needed."""
    assert child.stdin is not None  # noqa: S101 - for the type checker
    assert child.stdout is not None  # noqa: S101
    assert child.stderr is not None  # noqa: S101
    errors: list[bytes] = []
    reader = threading.Thread(target=_drain, args=(child.stderr, errors), daemon=True)
    reader.start()
    with contextlib.suppress(BrokenPipeError):  # ssh has ended, and says why
        child.stdin.write(script().encode())
        child.stdin.close()
    output = child.stdout.read(LARGEST + 1)
    if len(output) > LARGEST:
        _end(child)
    reader.join(timeout=2)
    return output, b"".join(errors)


def _drain(stream: IO[bytes], found: list[bytes]) -> None:
    kept = 0
    while part := stream.read(4096):
        if kept < _ERRORS:
            found.append(part)
        kept += len(part)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End ssh and the processes that it started, such as a ProxyCommand."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


class CaptureSession:
    """A capture on one host, by ssh, from ``start`` to ``finish``. Used in a ``with`` block."""

    def __init__(self, host: InventoryHost, script: str, seconds: float, *, sudo: bool) -> None:
        """``seconds`` are what the host has to begin, and again to end. Raises HostError."""
        self._host, self._seconds = host, seconds
        self._child = _started(host, seconds, sudo=sudo)
        assert self._child.stdin is not None  # noqa: S101 - for the type checker
        assert self._child.stdout is not None  # noqa: S101
        self._input, self._output = self._child.stdin, self._child.stdout
        self._errors: list[bytes] = []
        self._late = False
        self._script = script.encode()
        self._reader = threading.Thread(
            target=_drain, args=(self._child.stderr, self._errors), daemon=True
        )
        self._reader.start()

    def start(self) -> str:
        """Send the script, wait until it captures; return why it does not, or nothing."""
        with self._deadline():
            with contextlib.suppress(BrokenPipeError):  # ssh has ended, and says why
                self._input.write(self._script)
                self._input.flush()
            for line in iter(self._output.readline, b""):  # a login shell may greet
                if line == READY:
                    return ""
        return self._problem()

    def finish(self) -> tuple[bytes, str]:
        """End the capture; return what the script printed, and why it is not whole, or nothing."""
        with self._deadline():
            with contextlib.suppress(OSError):
                self._input.write(b"\n")
                self._input.close()
            output = self._output.read(LARGEST + 1)
        return output, "" if output.strip() and not self._late else self._problem()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End ssh; the script there ends with its input."""
        with contextlib.suppress(OSError):
            self._input.close()
        if self._child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_PARTING)
        _end(self._child)
        self._child.wait()
        for stream in (self._output, self._child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        timer = threading.Timer(self._seconds, self._give_up)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self._late = True
        _end(self._child)

    def _problem(self) -> str:
        self._reader.join(timeout=2)
        said = legible(b"".join(self._errors).decode(errors="replace")).strip()[-300:]
        if self._late:
            return f"no answer within {self._seconds:g} s{_after(said)}"
        return said or f"ssh ended with status {self._child.wait()}"


_PARTING = 2.0
"""Seconds that ssh has to end by itself, so that the script removes what it wrote."""
