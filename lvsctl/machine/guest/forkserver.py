"""The fork server: imports lvsctl once, and forks a child for every lvsctl command.

Importing what lvsctl needs takes one to three seconds inside the machine. The fork server is
forked from process 1 when the machine is ready. It is a process of its own because a failure in
process 1 ends the kernel, and because changed source code then needs a new fork server and not a
new machine.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import traceback

from lvsctl.machine.guest import boot, command

TYPE_CHECKING = False  # typing's own, which takes long to import on this kernel
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lvsctl.machine.guest.session import Session

MAX_MESSAGE = 4 * 1024 * 1024
NICENESS = 15

LAST = "-900\n"
"""Where memory is used up, commands are killed before their fork server."""

RETRY = 500
"""Milliseconds until the next attempt to fork."""

_SO_SNDBUFFORCE = 32  # SO_SNDBUF beyond the limit; the socket module does not name it
_ENDED = -1
_SESSION = struct.Struct("!I")


class EntryPoint:
    """The functions that the fork server calls, by name (``config.guest_config``).

    ``path`` is its sys.path. ``main`` and ``preload`` are MODULE:FUNCTION. ``main`` takes the
    arguments and returns the exit status; ``preload`` is called once, before the first fork.
    """

    def __init__(self, path: list[str], main: str, preload: str) -> None:
        self.path = path
        self.main = main
        self.preload = preload


class ForkServer:
    """A fork server as process 1 sees it: its channel, and which source code it has imported."""

    def __init__(self, channel: socket.socket, fingerprint: str) -> None:
        self.channel = channel
        self.fingerprint = fingerprint


class ForkServers:
    """Hands lvsctl commands to a fork server that has imported the client's source code.

    One is in use; older ones remain until their commands have ended.
    """

    def __init__(self) -> None:
        self._entry = EntryPoint([], "", "")
        self._current: ForkServer | None = None
        self._retired: list[ForkServer] = []
        self._died = False

    def start(self, entry: EntryPoint, fingerprint: str) -> None:
        """Start the first fork server, which runs this entry point."""
        self._entry = entry
        self._current = self._spawn(fingerprint)

    def start_command(self, session: Session) -> None:
        """Ask the fork server to start a command; ``answers`` returns the result."""
        fingerprint = session.request.fingerprint
        if self._current is not None and self._current.fingerprint != fingerprint:
            # It ends when its commands have.
            self._current.channel.shutdown(socket.SHUT_WR)
            self._retired.append(self._current)
            self._current = None
        if self._current is None:
            self._current = self._spawn(fingerprint)
        message = json.dumps({**vars(session.request), "session": session.identity}).encode()
        try:
            socket.send_fds(self._current.channel, [message], list(session.child_streams))
        except OSError as error:
            text = f"lvsctl: the machine cannot start the command: {error}\n"
            os.write(session.child_streams[2], text.encode())
            session.reject(command.BUG)

    def filenos(self) -> list[int]:
        """Return the file descriptors to poll for answers."""
        return [process.channel.fileno() for process in self._processes()]

    def answers(self) -> Iterator[tuple[int, dict[str, int]]]:
        """Yield the answers that have arrived, each with its session (see ``serve``)."""
        for process in self._processes():
            while data := self._read(process):
                answer = json.loads(data)
                yield answer["session"], answer

    def died(self) -> bool:
        """Return whether the fork server in use has died since the last call."""
        died, self._died = self._died, False
        return died

    def _processes(self) -> list[ForkServer]:
        return [*self._retired, *([self._current] if self._current else [])]

    def _read(self, process: ForkServer) -> bytes:
        """Read an answer; empty if none is available, or the fork server has ended."""
        try:
            data = process.channel.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            # It has ended. Commands that it left behind are process 1's own children now.
            process.channel.close()
            if process is self._current:
                self._current = None
                self._died = True
            else:
                self._retired.remove(process)
        return data

    def _spawn(self, fingerprint: str) -> ForkServer:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, MAX_MESSAGE)
        if os.fork():
            theirs.close()
            return ForkServer(ours, fingerprint)
        try:
            command.restore_signals()
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as in any Python
            ours.detach()
            # The commands' streams must end when process 1 and the command close them.
            os.closerange(3, theirs.fileno())
            os.closerange(theirs.fileno() + 1, boot.MAX_OPEN_FILES)
            serve(theirs, self._entry)
        except BaseException:  # noqa: BLE001 - a child must never return into process 1's loop
            traceback.print_exc()
        finally:
            os._exit(command.BUG)


def serve(channel: socket.socket, entry: EntryPoint) -> None:
    """Import the entry point, then run it for each request until the channel ends.

    A request is the JSON of a command.Request with ``session`` added, and three file
    descriptors. The answers are JSON too: ``{"session": n, "pid": pid}``, then
    ``{"session": n, "status": wait status}``.

    Forking a process of this size takes longer in User-Mode Linux than a short command, so one
    child is always forked in advance. It receives the next request from the channel itself.
    """
    _import_entry_point(entry)
    wakeup_read, wakeup_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wakeup_write)
    signal.signal(signal.SIGCHLD, _do_nothing)
    taken_read, taken_write = os.pipe2(os.O_CLOEXEC)
    # Forking the next child is for an idle moment: it must not delay the command just started.
    os.nice(NICENESS)
    _be_killed_for_memory(LAST)
    children: dict[int, int] = {}
    preforked = 0
    poll = select.poll()
    poll.register(taken_read, select.POLLIN)
    poll.register(wakeup_read, select.POLLIN)
    while True:
        if preforked == 0:
            unused = (wakeup_read, wakeup_write, taken_read)
            preforked = _fork_ahead(channel, entry, taken_write, unused)
        for fd, _ in poll.poll(RETRY if preforked == 0 else None):
            if fd == taken_read:
                children[preforked] = _SESSION.unpack(os.read(taken_read, _SESSION.size))[0]
                preforked = 0
            else:
                os.read(wakeup_read, 4096)
        ended = _reap()
        for pid in ended.keys() & children.keys():
            _answer(channel, {"session": children.pop(pid), "status": ended[pid]})
        if preforked in ended:
            # The channel has ended: a newer fork server has taken over.
            preforked = _ENDED
        if preforked == _ENDED and not children:
            return


def _be_killed_for_memory(score: str) -> None:
    """Set how early the kernel kills this process if memory is used up (proc_pid_oom_score_adj)."""
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(score)


def _refuse_request(channel: socket.socket, error: OSError) -> bool:
    """Answer a request, if one waits, for which no process can be created.

    Returns whether the channel is still open.
    """
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if not poll.poll(0):
        return True
    message, streams, _, _ = socket.recv_fds(channel, MAX_MESSAGE, 3)
    if not message:
        return False
    command.print_refusal(streams[2], error)
    for fd in streams:
        os.close(fd)
    status = command.HOST_CANNOT << 8  # as wait(2) encodes it
    _answer(channel, {"session": json.loads(message)["session"], "status": status})
    return True


def _fork_ahead(
    channel: socket.socket, entry: EntryPoint, taken: int, unused: tuple[int, ...]
) -> int:
    """Fork the child for the next request; return its id, 0 if none could be created.

    Then a request that waits is refused; _ENDED if the channel has ended.
    """
    try:
        pid = command.fork()
    except OSError as error:  # no memory, or too many processes
        return 0 if _refuse_request(channel, error) else _ENDED
    if pid == 0:
        _run_preforked_child(channel, entry, taken, unused)
    return pid


def _run_preforked_child(
    channel: socket.socket, entry: EntryPoint, taken: int, unused: tuple[int, ...]
) -> None:
    """In a child: wait for a request and become its command. Never returns."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for fd in unused:
        os.close(fd)
    message, streams, _, _ = socket.recv_fds(channel, MAX_MESSAGE, 3)
    if not message:
        os._exit(0)
    fields = json.loads(message)
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    _be_killed_for_memory("0\n")
    os.setsid()  # before anyone can signal its process group
    _answer(channel, {"session": fields["session"], "pid": os.getpid()})
    os.write(taken, _SESSION.pack(fields["session"]))
    os.close(taken)
    channel.close()
    _run(command.Request(fields), (streams[0], streams[1], streams[2]), entry.main)


def _reap() -> dict[int, int]:
    """Reap children that have ended; return process id → wait status."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def _answer(channel: socket.socket, answer: dict[str, int]) -> None:
    channel.send(json.dumps(answer).encode())


def _do_nothing(_signal: int, _frame: object) -> None:
    """Handle SIGCHLD: only the wakeup file descriptor matters."""


def _import_entry_point(entry: EntryPoint) -> None:
    import site  # process 1 runs with -S; editable installs (.pth files) need it from here on

    gc.disable()  # collecting while importing frees nothing and touches every page
    site.main()
    sys.path[:] = entry.path
    try:
        _call(entry.preload)
    except Exception as error:  # noqa: BLE001 - the command's own import reports it in full
        print(f"lvsctl agent: cannot import lvsctl in advance: {error!r}", flush=True)  # noqa: T201 - the console
    gc.collect()
    # Without this, the first collection in each child would copy every page.
    gc.freeze()
    gc.enable()


def _call(name: str, *arguments: object) -> object:
    """Call a function by its name, MODULE:FUNCTION."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)(*arguments)


def _run(request: command.Request, streams: tuple[int, int, int], main: str) -> None:
    """In the child: run the entry point and end the process. Never returns."""
    status = command.BUG
    try:
        command.become(request, streams)
        os.environ.clear()
        os.environ.update(request.env)
        command.replace_standard_streams()
        sys.argv = ["lvsctl", *request.argv]
        status = int(str(_call(main, request.argv)))
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        _flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 - this is the process's outermost frame
        traceback.print_exc()
    finally:
        os._exit((status if _flush() else status or 1) & 0xFF)


def _flush() -> bool:
    """Write what is buffered; return whether that was possible."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return False
    return True
