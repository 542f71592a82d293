"""One command's streams in process 1: pipes or a terminal on one side, frames on the other."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import termios

from lvsctl.machine import frames
from lvsctl.machine.guest.command import Request

QUIET = 0.02
"""Seconds to wait for more output from the terminal of a command that has ended.

A terminal's output passes through a kernel worker, so what the command wrote before it ended
can become readable later. For a pipe, the number of bytes left is known.
"""

HANGUP_TIMEOUT = 10.0
"""Seconds for a command without a client to end after SIGHUP, before SIGKILL."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Send = Callable[[int, int, bytes], None]


class Output:
    """A stream from the command to its client."""

    def __init__(self, kind: int, fd: int) -> None:
        self.kind = kind
        self.fd = fd
        self.credit = frames.Credit(frames.STREAM_CREDIT)
        self.left: int | None = None  # bytes still to be passed on, known once the command ended


class Session:
    """A running command. ``child_streams`` are for the child and closed after the fork."""

    def __init__(self, identity: int, request: Request, send: Send) -> None:
        self.identity = identity
        self.request = request
        self.pid = 0
        self.status: int | None = None
        self.hung_up = False
        self.kill_at: float | None = None
        self.memory_failures = memory_failures()
        self._early_signals: list[int] = []
        self._send = send
        self._ended_at = 0.0
        self._last_output = 0.0
        self._stdin: int | None = None
        self._stdin_pending = bytearray()
        self._stdin_ended = False
        self.outputs: list[Output] = []
        self._terminal: int | None = None
        self.child_streams = self._open_streams()

    def _open_streams(self) -> tuple[int, int, int]:
        slave = -1
        if self.request.terminal:
            self._terminal, slave = os.openpty()
            os.set_blocking(self._terminal, False)
            self.resize(*self.request.size)
            if 0 not in self.request.terminal:
                _leave_line_ends(slave)
            kind = frames.STDERR if self.request.terminal == (2,) else frames.STDOUT
            self.outputs.append(Output(kind, self._terminal))
        child = []
        for stream in range(3):
            if stream in self.request.terminal:
                child.append(os.dup(slave))
            elif stream == 0:
                theirs, self._stdin = os.pipe()
                os.set_blocking(self._stdin, False)
                child.append(theirs)
            else:
                ours, theirs = os.pipe()
                kind = frames.STDOUT if stream == 1 else frames.STDERR
                self.outputs.append(Output(kind, ours))
                child.append(theirs)
        if slave >= 0:
            os.close(slave)
        if 0 in self.request.terminal:
            self._stdin = self._terminal
        return child[0], child[1], child[2]

    def close_child_streams(self) -> None:
        """Close the child's streams here, after the fork."""
        for fd in self.child_streams:
            os.close(fd)

    def handle(self, kind: int, payload: bytes, now: float) -> None:
        """Handle a frame from the client."""
        if kind == frames.STDIN:
            self.feed(payload)
        elif kind == frames.SIGNAL:
            self.signal(frames.number_of(payload))
        elif kind == frames.RESIZE:
            self.resize(*frames.pair_of(payload))
        elif kind == frames.CLOSE:
            self.close_output(frames.number_of(payload))
        elif kind == frames.CREDIT:
            self.grant(*frames.pair_of(payload))
        elif kind == frames.HANGUP:
            self.hang_up(now)

    # What the loop must watch.

    def interests(self) -> dict[int, int]:
        """Return what to poll: file descriptor → events."""
        wanted: dict[int, int] = {}
        for output in self.outputs:
            if output.credit.available > 0:
                wanted[output.fd] = select.POLLIN
        if self._stdin is not None and (self._stdin_pending or self._stdin != self._terminal):
            # Without data a pipe is watched for POLLERR only: its reader has closed it.
            events = select.POLLOUT if self._stdin_pending else 0
            wanted[self._stdin] = wanted.get(self._stdin, 0) | events
        return wanted

    def deadline(self) -> float | None:
        """Return when ``tick`` must be called at the latest, on the monotonic clock."""
        if self.status is not None and self._terminal is not None:
            return max(self._ended_at, self._last_output) + QUIET
        return self.kill_at

    def ready(self, fd: int, events: int, now: float) -> None:
        """poll reported ``events`` on ``fd``."""
        for output in [output for output in self.outputs if output.fd == fd]:
            if events & ~select.POLLOUT and output.credit.available > 0:
                self._pass_on(output, now)
        if fd == self._stdin:
            if events & (select.POLLERR | select.POLLNVAL):
                self._close_stdin()
            elif events & select.POLLOUT:
                self._push_stdin()

    def tick(self, now: float) -> None:
        """Kill the command if its time to end after SIGHUP is over."""
        if self.kill_at is not None and now >= self.kill_at and self.status is None:
            self.kill_at = None
            self.signal(signal.SIGKILL)

    # Output.

    def _pass_on(self, output: Output, now: float) -> None:
        wanted = output.credit.available
        if output.left is not None:
            wanted = min(wanted, output.left)
        try:
            data = os.read(output.fd, min(wanted, frames.MAX_CHUNK))
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the terminal's other side is closed
                raise
            data = b""
        if not data:
            self._drop(output)
            return
        self._last_output = now
        output.credit.spend(len(data))
        if output.left is not None:
            output.left -= len(data)
        if not self.hung_up:
            self._send(output.kind, self.identity, data)

    def _drop(self, output: Output) -> None:
        self.outputs.remove(output)
        if output.fd == self._terminal:
            self._terminal = None
            if self._stdin == output.fd:
                self._stdin = None
        os.close(output.fd)

    def close_output(self, stream: int) -> None:
        """Close a stream that the client cannot write, so that the command's next write fails."""
        kind = frames.STDOUT if stream == 1 else frames.STDERR
        for output in [output for output in self.outputs if output.kind == kind]:
            self._drop(output)

    def grant(self, stream: int, amount: int) -> None:
        """Record that the client has consumed ``amount`` bytes."""
        kind = frames.STDOUT if stream == 1 else frames.STDERR
        for output in self.outputs:
            if output.kind == kind:
                output.credit.grant(amount)

    # Input.

    def feed(self, data: bytes) -> None:
        """Pass on standard input from the client; empty data means end of file."""
        if not data:
            self._stdin_ended = True
        if self._stdin is None:
            self._acknowledge(len(data))
            return
        self._stdin_pending += data
        self._push_stdin()

    def _push_stdin(self) -> None:
        if self._stdin is None:
            return
        if self._stdin_pending:
            try:
                written = os.write(self._stdin, self._stdin_pending)
            except BlockingIOError:
                return
            except OSError:  # the reader has closed it; for a terminal, the session has ended
                self._close_stdin()
                return
            del self._stdin_pending[:written]
            self._acknowledge(written)
        if self._stdin_ended and not self._stdin_pending:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin is not None and self._stdin != self._terminal:
            os.close(self._stdin)
        self._stdin = None
        self._acknowledge(len(self._stdin_pending))
        self._stdin_pending.clear()

    def _acknowledge(self, amount: int) -> None:
        if amount and not self.hung_up:
            self._send(frames.CREDIT, self.identity, frames.pair(0, amount))

    # Control.

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the command's terminal to the client's."""
        if self._terminal is not None:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def started(self, pid: int) -> None:
        """Record the command's process, and send it the signals that came before it existed."""
        self.pid = pid
        early, self._early_signals = self._early_signals, []
        for number in early:
            self.signal(number)

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group, in a terminal to the foreground one."""
        if self.status is not None:
            return
        if self.pid == 0:
            self._early_signals.append(number)
            return
        groups = {self.pid}
        if self._terminal is not None:
            foreground = array.array("i", [0])
            fcntl.ioctl(self._terminal, termios.TIOCGPGRP, foreground)
            if foreground[0] > 0:
                groups = {foreground[0]}
        if number in (signal.SIGHUP, signal.SIGKILL):
            groups.add(self.pid)
        for group in groups:
            try:
                os.killpg(group, number)
            except ProcessLookupError:  # it has not called setsid yet, or has ended
                if group == self.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(group, number)

    def hang_up(self, now: float) -> None:
        """Close the streams and ask the command to end: the client has disconnected."""
        self.hung_up = True
        self.signal(signal.SIGHUP)
        self._close_stdin()
        for output in list(self.outputs):
            self._drop(output)
        self.kill_at = now + HANGUP_TIMEOUT

    def reject(self, status: int) -> None:
        """Record that the command could not be started."""
        self.ended(status, 0.0)

    def ended(self, status: int, now: float) -> None:
        """Record that the command's main process has ended with this exit status."""
        self.status = status
        self._ended_at = now
        self._close_stdin()
        for output in self.outputs:
            if output.fd != self._terminal:
                left = array.array("i", [0])
                fcntl.ioctl(output.fd, termios.FIONREAD, left)
                output.left = left[0]

    def finished(self, now: float) -> bool:
        """Return whether all output that the command wrote before it ended has been passed on.

        Other processes may still hold its streams open; they are not waited for.
        """
        if self.status is None:
            return False
        for output in list(self.outputs):
            if output.fd != self._terminal and output.left == 0:
                self._drop(output)
        if [output.fd for output in self.outputs] == [self._terminal]:
            starved = self.outputs[0].credit.available == 0
            if not starved and now >= max(self._ended_at, self._last_output) + QUIET:
                self._drop(self.outputs[0])
        return not self.outputs


def memory_failures() -> int:
    """Return how many processes the kernel has killed because its memory was used up."""
    with open("/proc/vmstat", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def _leave_line_ends(terminal: int) -> None:
    """Turn off output processing: the user's terminal, not raw here, translates line ends."""
    attributes = termios.tcgetattr(terminal)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
