"""The warm process: lvsctl imported once, forked for every lvsctl command.

Importing what lvsctl needs takes one to three seconds inside. The warm process is forked
from process 1 as soon as the machine is ready, imports, and then forks a child per
request. It is not process 1 itself because anything that goes wrong in there ends the
kernel, and so that new source code needs a new warm process and not a new machine.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import sys

from . import command, memory

MAX_MESSAGE = 4 * 1024 * 1024
NICENESS = 15

HEAP = 20 << 20
"""Bytes that lvsctl takes once it is imported, or a little more."""

_NO_MORE = -1
_SESSION = struct.Struct("!I")


def serve(channel: socket.socket, path: list[str]) -> None:
    """Import lvsctl by the host's sys.path, then answer requests until the channel ends.

    A request is the JSON of a command.Request with ``session`` added, and three file
    descriptors. The answers are JSON too: ``{"session": n, "pid": pid}``, then
    ``{"session": n, "status": wait status}``.

    Forking a process of this size takes longer in UML than a short command, so one child,
    the spare, is always forked ahead. It takes the next request from the channel itself.
    """
    memory.map_code()
    with memory.Ahead(HEAP):
        _import_lvsctl(path)
    wakeup_read, wakeup_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wakeup_write)
    signal.signal(signal.SIGCHLD, _do_nothing)
    taken_read, taken_write = os.pipe2(os.O_CLOEXEC)
    # The next spare is for an idle moment: it must not slow down the command just started.
    os.nice(NICENESS)
    children: dict[int, int] = {}
    spare = 0
    poll = select.poll()
    poll.register(taken_read, select.POLLIN)
    poll.register(wakeup_read, select.POLLIN)
    while True:
        if spare == 0:
            spare = os.fork()
            if spare == 0:
                _be_spare(channel, taken_write, (wakeup_read, wakeup_write, taken_read))
        for fd, _ in poll.poll():
            if fd == taken_read:
                children[spare] = _SESSION.unpack(os.read(taken_read, _SESSION.size))[0]
                spare = 0
            else:
                os.read(wakeup_read, 4096)
        ended = _ended()
        for pid in ended.keys() & children.keys():
            _tell(channel, {"session": children.pop(pid), "status": ended[pid]})
        if spare in ended:
            # The channel has ended: a newer warm process has taken over.
            spare = _NO_MORE
        if spare == _NO_MORE and not children:
            return


def _be_spare(channel: socket.socket, taken: int, not_ours: tuple[int, ...]) -> None:
    """In a child: wait for a request and become its command. Never returns."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for fd in not_ours:
        os.close(fd)
    memory.map_code()
    message, streams, _, _ = socket.recv_fds(channel, MAX_MESSAGE, 3)
    if not message:
        os._exit(0)
    fields = json.loads(message)
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    _tell(channel, {"session": fields["session"], "pid": os.getpid()})
    os.write(taken, _SESSION.pack(fields["session"]))
    os.close(taken)
    channel.close()
    _run(command.Request(fields), (streams[0], streams[1], streams[2]))


def _ended() -> dict[int, int]:
    """Children that have ended: process id → wait status."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def _tell(channel: socket.socket, answer: dict[str, int]) -> None:
    channel.send(json.dumps(answer).encode())


def _do_nothing(_signal: int, _frame: object) -> None:
    """Only the wakeup file descriptor matters."""


def _import_lvsctl(path: list[str]) -> None:
    # -S kept process 1 fast; .pth files (editable installs) matter from here on.
    import site

    gc.disable()  # collecting while importing frees nothing and touches every page
    site.main()
    sys.path[:] = path
    try:
        import lvsctl.cli.preload  # noqa: F401
    except Exception as error:  # noqa: BLE001 - the command's own import reports it in full
        print(f"lvsctl agent: cannot import lvsctl in advance: {error!r}", flush=True)  # noqa: T201 - the console
    gc.collect()
    # Without this, the first collection in each child would copy every page.
    gc.freeze()
    gc.enable()


def _run(request: command.Request, streams: tuple[int, int, int]) -> None:
    """In the child: run lvsctl's main and end the process. Never returns."""
    status = command.BUG
    try:
        command.become(request, streams)
        os.environ.clear()
        os.environ.update(request.env)
        command.replace_standard_streams()
        sys.argv = ["lvsctl", *request.argv]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = _main_of_lvsctl(request.argv)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        _flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001 - this is the process's outermost frame
        import traceback

        traceback.print_exc()
    finally:
        os._exit((status if _flush() else status or 1) & 0xFF)


def _flush() -> bool:
    """Write what is buffered; whether that was possible."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return False
    return True


def _main_of_lvsctl(argv: list[str]) -> int:
    from lvsctl.cli.main import main

    return int(main(argv))
