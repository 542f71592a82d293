"""Takes labs down where pytest cannot any more: killed, crashed, or gone without a word.

A process of its own, ``python -m lvsctl.testing.guard JSON``, in a session of its own. It is
told on standard input, a word and a name a line, which labs there may be (``up NAME``) and
which are gone (``down NAME``). When that ends, by the pytest process's will or by its death,
it ends that process's commands that still run, removes the labs that are left, and stops the
machine, if it was theirs alone. What it could not do it prints.

A command is known to be ours by OWNER in its environment, whose value is this run's alone.
Only the standard library is imported: pytest waits for it.
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

PATIENCE = 60.0
"""Seconds for the commands of a dead pytest process to end, each undoing what is half done."""


@dataclass(frozen=True, slots=True)
class Order:
    """Whom to watch: ``pid``, whose commands have OWNER = ``token``.

    ``environment`` is theirs. ``machine``: whether its machine is to be stopped too.
    """

    pid: int
    token: str
    environment: dict[str, str]
    machine: bool


class Guard:
    """The pytest process's end of it."""

    def __init__(self, order: Order) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, json.dumps(asdict(order))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )

    def tell(self, word: str, lab: str) -> None:
        """``up`` before there is anything of a lab, ``down`` when nothing of it is left."""
        assert self._process.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # finish() says that it has gone
            self._process.stdin.write(f"{word} {lab}\n".encode())
            self._process.stdin.flush()

    def finish(self) -> list[str]:
        """Have it do its work now; what it could not do."""
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
    if _end_commands(order):  # one of them may have been about to start the machine
        complaints = list(_stopped(order))
    for complaint in (*complaints, *_removed(order, labs)):
        print(complaint, flush=True)  # noqa: T201 (the pytest process reads it)


def _labs_left(pid: int) -> list[str]:
    """The labs that may be there when the pytest process has said so, or is dead."""
    labs: dict[str, None] = {}
    for line in _lines(pid):
        word, _, name = line.partition(" ")
        if word == "up":
            labs[name] = None
        else:
            labs.pop(name, None)
    return list(labs)


def _lines(pid: int) -> Iterator[str]:
    """Of standard input, until its end, or that of the process: its forks may hold the pipe."""
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
    """End what runs for the pytest process; an ``up`` that is half done undoes itself.

    Whether there was anything.
    """
    deadline = time.monotonic() + PATIENCE
    told: set[int] = set()
    while (living := list(_commands(order))) and time.monotonic() < deadline:
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                try:
                    if pid not in told:
                        signal.pidfd_send_signal(fd, signal.SIGTERM)
                        told.add(pid)
                    select.select([fd], [], [], 1.0)
                finally:
                    os.close(fd)
    return bool(told)


def _commands(order: Order) -> Iterator[int]:
    mark = f"{OWNER}={order.token}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in (order.pid, os.getpid()):
            continue
        with contextlib.suppress(OSError):  # ended, or another user's
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)


def _stopped(order: Order) -> Iterator[str]:
    """Stop the machine, if it is theirs alone; what could not be done."""
    if order.machine:
        yield from _failed(order, "machine", "stop")


def _removed(order: Order, labs: Sequence[str]) -> Iterator[str]:
    """Remove the labs that are left; what could not be done. Those in the machine went with it."""
    for lab in () if order.machine else labs:
        for complaint in _failed(order, "down", lab):
            if "is not running" not in complaint:
                yield complaint


def _failed(order: Order, *words: str) -> Iterator[str]:
    """Run an lvsctl command; what it said if it failed."""
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
