"""Connect a command in the machine to this process's streams, terminal and signals."""

from __future__ import annotations

import collections
import contextlib
import errno
import json
import os
import select
import signal
import stat
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from lvsctl.errors import HostError
from lvsctl.machine import frames
from lvsctl.machine.connection import Connection


class Streams(NamedTuple):
    """The way in which the three standard streams are passed to a command.

    ``terminal`` are those that become a terminal in the guest. ``forward_stdin`` is false
    if another process reads standard input.
    """

    terminal: tuple[int, ...]
    forward_stdin: bool
    raw: bool


def standard_streams(tty_wanted: bool | None) -> Streams:
    """Decide from this process's streams; ``tty_wanted`` overrides the decision (None: does not).

    In ``lvsctl ls | less`` both could read the keyboard: lvsctl leaves it, and its mode, to the
    pager unless ``tty_wanted``.
    """
    terminals = tuple(fd for fd in range(3) if tty_wanted is not False and _is_terminal(fd))
    if 0 not in terminals:
        return Streams(terminals, forward_stdin=not _is_terminal(0) or _foreground(), raw=False)
    if not _foreground() or (_is_pipe(1) and not tty_wanted):
        return Streams(tuple(fd for fd in terminals if fd), forward_stdin=False, raw=False)
    return Streams(terminals, forward_stdin=True, raw=True)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False


def _foreground() -> bool:
    """Return whether this process may read its terminal; a background job would be stopped."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def terminal_size(fds: Sequence[int]) -> tuple[int, int]:
    """Return rows and columns of the first terminal among ``fds``; 24, 80 if there is none."""
    for fd in fds:
        with contextlib.suppress(OSError):
            found = os.get_terminal_size(fd)
            if found.lines and found.columns:
                return found.lines, found.columns
    return 24, 80


class RawMode:
    """While entered, the terminal on standard input is raw: every key goes to the guest."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._saved: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> Self:
        if self._wanted:
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)
        return self

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            # DRAIN, not FLUSH: keys typed ahead belong to the shell.
            with contextlib.suppress(termios.error):  # the terminal has been closed
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)


FORWARDED = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2),
)

ANSWER_TIMEOUT = 5.0
"""Seconds for the machine to respond after the user has interrupted the command."""

QUIET = 10.0
"""Seconds without anything from the machine after which it is asked whether it still runs."""

QUIET_TIMEOUT = 20.0
"""Seconds for its answer then: a busy machine may be slow."""

_INTERRUPT_KEYS = (b"\x03", b"\x1c")
_CREDIT_LUMP = frames.STREAM_CREDIT // 2


def relay(connection: Connection, request: Mapping[str, object], passed: Streams) -> int:
    """Send the request, pass data both ways, and return the command's exit status.

    The user's terminal is restored before this returns or raises. Raises HostError if the
    machine dies or does not respond to an interrupt, or if the command's output cannot be
    written (a full disk).
    """
    with _signals() as wakeup, RawMode(passed.raw):
        return _Relay(connection, passed, wakeup).run(request)


def paths_in(argv: Sequence[str], cwd: str, search: str = "") -> list[str]:
    """Return existing paths in /tmp and /var/tmp among the arguments (also ``--option=PATH``).

    And among the directories in ``search``, which has them as PATH does.

    The guest has directories of its own there, but must see files of the host that the user
    names. /run is always the guest's own: it has the names of network namespaces.
    """
    found = []
    for word in (*argv, *search.split(":")):
        for candidate in {word, word.partition("=")[2]}:
            if "/" in candidate:
                path = Path(os.path.normpath(Path(cwd, candidate)))
                if path.is_relative_to("/tmp") or path.is_relative_to("/var/tmp"):  # noqa: S108
                    found.append(str(path))
    return [path for path in found if Path(path).exists()]


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """While entered, write forwarded signals and SIGWINCH as bytes to the returned descriptor."""
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    previous_fd = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    caught = [n for n in FORWARDED if signal.getsignal(n) is not signal.SIG_IGN]
    previous = {n: signal.signal(n, lambda *_: None) for n in (*caught, signal.SIGWINCH)}
    try:
        yield read_end
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        os.close(read_end)
        os.close(write_end)


class _Output:
    """Bytes to be written to stream 1 or 2, and the credit that is returned for them."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.queue: collections.deque[bytes] = collections.deque()
        self.returns = frames.Returns(_CREDIT_LUMP)
        self.broken = False
        self.failure: OSError | None = None
        """The error on writing the stream, other than a closed pipe."""


class _Relay:
    def __init__(self, connection: Connection, passed: Streams, wakeup: int) -> None:
        self._connection = connection
        self._passed = passed
        self._wakeup = wakeup
        self._outputs = {1: _Output(1), 2: _Output(2)}
        self._stdin_credit = frames.Credit(frames.STDIN_CREDIT)
        self._stdin_open = passed.forward_stdin
        self._answer_by: float | None = None
        self._ask_at = time.monotonic() + QUIET
        self._status: int | None = None

    def run(self, request: Mapping[str, object]) -> int:
        rows, columns = terminal_size((1, 2, 0))
        message = {**request, "size": [str(rows), str(columns)]}
        self._connection.send(frames.RUN, json.dumps(message).encode())
        if not self._stdin_open and 0 not in self._passed.terminal:
            self._connection.send(frames.STDIN)
        while self._status is None or self._pending():
            self._turn()
        failure = self._outputs[1].failure
        if failure is not None:
            raise HostError(f"cannot write the output: {failure.strerror}")
        return self._status

    def _pending(self) -> bool:
        return any(output.queue for output in self._outputs.values())

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        if self._status is None:
            poll.register(self._connection, select.POLLIN)
        if self._stdin_open and self._stdin_credit.available and self._status is None:
            poll.register(0, select.POLLIN)
        for output in self._outputs.values():
            if output.queue:
                poll.register(output.stream, select.POLLOUT)
        self._handle(dict(poll.poll(self._timeout())))

    def _handle(self, events: Mapping[int, int]) -> None:
        if self._wakeup in events:
            self._forward_signals()
        for output in self._outputs.values():
            if output.queue and output.stream in events:
                self._write(output)
        if 0 in events:
            self._read_stdin()
        if self._connection.fileno() in events:
            self._receive()
            while self._connection.pending():
                self._receive()
        elif self._answer_by is not None and time.monotonic() >= self._answer_by:
            raise HostError("the machine does not respond", hint="stop it: lvsctl machine stop")
        elif self._answer_by is None and time.monotonic() >= self._ask_at:
            self._expect_answer(QUIET_TIMEOUT)

    def _timeout(self) -> float:
        due = self._ask_at if self._answer_by is None else self._answer_by
        return max(0.0, due - time.monotonic()) * 1000 + 1

    def _receive(self) -> None:
        for kind, payload in self._connection.receive():
            self._answer_by = None
            self._ask_at = time.monotonic() + QUIET
            if kind == frames.STDOUT:
                self._outputs[1].queue.append(payload)
            elif kind == frames.STDERR:
                self._outputs[2].queue.append(payload)
            elif kind == frames.CREDIT:
                self._stdin_credit.grant(frames.pair_of(payload)[1])
            elif kind == frames.EXIT:
                self._status = frames.number_of(payload)

    def _write(self, output: _Output) -> None:
        data = output.queue.popleft()
        written = len(data)
        if not output.broken:
            try:
                written = os.write(output.stream, data)
            except BlockingIOError:  # another process has made the stream non-blocking
                written = 0
            except OSError as error:
                output.broken = True
                # A closed pipe (EPIPE) is passed on to the command, as SIGPIPE. A full disk must be
                # reported here: the command cannot notice it.
                output.failure = None if error.errno == errno.EPIPE else error
                self._connection.send(frames.CLOSE, frames.number(output.stream))
        if written < len(data):
            output.queue.appendleft(data[written:])
        due = output.returns.consumed(written)
        if due:
            self._connection.send(frames.CREDIT, frames.pair(output.stream, due))

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, min(self._stdin_credit.available, 1024))
        except BlockingIOError:
            return
        except OSError:  # the terminal has been closed
            data = b""
        if not data:
            self._stdin_open = False
        self._stdin_credit.spend(len(data))
        self._connection.send(frames.STDIN, data)
        if self._passed.raw and any(key in data for key in _INTERRUPT_KEYS):
            self._expect_answer()

    def _forward_signals(self) -> None:
        for number in os.read(self._wakeup, 4096):
            if number == signal.SIGWINCH:
                rows, columns = terminal_size((1, 2, 0))
                self._connection.send(frames.RESIZE, frames.pair(rows, columns))
            elif number in FORWARDED:
                self._connection.send(frames.SIGNAL, frames.number(number))
                self._expect_answer()

    def _expect_answer(self, seconds: float = ANSWER_TIMEOUT) -> None:
        """Expect a response soon, so that an interrupt works even if the machine hangs."""
        self._connection.send(frames.PING)
        by = time.monotonic() + seconds
        self._answer_by = by if self._answer_by is None else min(by, self._answer_by)
