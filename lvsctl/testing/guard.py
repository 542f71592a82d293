"""A process that removes labs if pytest cannot: because it was killed or crashed.

It runs as ``python -m lvsctl.testing.guard JSON`` in its own session. Standard input has a line
for each lab that may exist (``up NAME``) or was removed (``down NAME``). At its end, because
pytest closed it or died, the guard terminates pytest's remaining commands, removes the remaining
labs, and stops the machine if it was this run's own. It prints what it could not do.

Commands of this run are identified by the variable OWNER in their environment. Only the standard
library is imported, because pytest waits for this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

OWNER = "LVSCTL_PYTEST"
"""Environment variable of every command that is run for a pytest process."""

TIMEOUT = 60.0
"""Seconds for the commands of a dead pytest process to roll back and end."""


@dataclass(frozen=True, slots=True)
class Order:
    """The process to watch: ``pid``, whose commands have OWNER = ``token``.

    ``environment`` is that of its commands. ``machine``: whether to stop its machine.
    """

    pid: int
    token: str
    environment: dict[str, str]
    machine: bool


class Guard:
    """The pytest process's handle of the guard."""

    def __init__(self, order: Order) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, json.dumps(asdict(order))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )

    def tell(self, word: str, lab: str) -> None:
        """Send ``up`` before a lab is created, ``down`` after it was removed."""
        assert self._process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # finish() reports that it ended
            self._process.stdin.write(f"{word} {lab}\n".encode())
            self._process.stdin.flush()

    def finish(self) -> list[str]:
        """Let it clean up now; return what it could not do."""
        said, _ = self._process.communicate()
        status = self._process.returncode
        gone = [f"the guard of the labs ended with status {status}"] if status else []
        return [*said.decode(errors="replace").splitlines(), *gone]


def main() -> None:
    """Entry of ``python -m lvsctl.testing.guard``."""
    order = Order(**json.loads(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    labs = _labs_left(order.pid)
    complaints = list(_stopped(order))
    if _end_commands(order):  # one of them may have been starting the machine
        complaints = list(_stopped(order))
    for complaint in (*complaints, *_removed(order, labs)):
        print(complaint, flush=True)  # noqa: T201 (the pytest process reads it)


def _labs_left(pid: int) -> list[str]:
    """Return the labs that may exist when the pytest process has finished or died."""
    labs: dict[str, None] = {}
    for line in _lines(pid):
        word, _, name = line.partition(" ")
        if word == "up":
            labs[name] = None
        else:
            labs.pop(name, None)
    return list(labs)


def _lines(pid: int) -> Iterator[str]:
    """Lines of standard input until its end or the process's: forks may keep the pipe open."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        process = -1
    else:
        poll.register(process, select.POLLIN)
    rest = b""
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if 0 in ready:
            data = os.read(0, 65536)
            *lines, rest = (rest + data).split(b"\n")
            yield from (line.decode() for line in lines)
            if not data:
                return
        elif process in ready:  # and nothing more to read
            return


def _end_commands(order: Order) -> bool:
    """Terminate the commands of the pytest process; an unfinished ``up`` rolls back.

    Returns whether there were any.
    """
    deadline = time.monotonic() + TIMEOUT
    told: set[int] = set()
    while (living := list(_commands(order))) and time.monotonic() < deadline:
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                try:
                    # Looked at again now that its id cannot be reused.
                    if pid not in told and _is_command(pid, order):
                        signal.pidfd_send_signal(fd, signal.SIGTERM)
                        told.add(pid)
                    select.select([fd], [], [], 1.0)
                finally:
                    os.close(fd)
    return bool(told)


def _commands(order: Order) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in (order.pid, os.getpid()):
            continue
        if _is_command(int(entry.name), order):
            yield int(entry.name)


def _is_command(pid: int, order: Order) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # ended, or another user's
        return False
    return f"{OWNER}={order.token}".encode() in environment


def _stopped(order: Order) -> Iterator[str]:
    """Stop the machine if it is this run's own; yield errors."""
    if order.machine:
        yield from _failed(order, "machine", "stop")


def _removed(order: Order, labs: Sequence[str]) -> Iterator[str]:
    """Remove the remaining labs, unless they ended with the machine; yield errors."""
    for lab in () if order.machine else labs:
        for complaint in _failed(order, "down", lab):
            if "is not running" not in complaint:
                yield complaint


def _failed(order: Order, *words: str) -> Iterator[str]:
    """Run an lvsctl command; yield its error if it failed."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lvsctl", *words],
        env={**os.environ, **order.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        yield f"lvsctl {' '.join(words)}: {said}"


if __name__ == "__main__":
    main()
