"""Every real server of a lab, answered by one process and one thread.

A socket belongs to the namespace in which it was opened, so that one epoll loop can
stand on all real servers at once. Each connection costs as few system calls as a C
server's: accept, recv, getsockname, send, close, and epoll only where it must wait.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol as Interface
from typing import Self

from lvsctl.kernel.apply import Respond
from lvsctl.kernel.processes import Ready, give_up_root
from lvsctl.model.lab import Lab
from lvsctl.resources.ops import Listen
from lvsctl.traffic.answers import Speaker
from lvsctl.traffic.connection import Connection, written
from lvsctl.traffic.datagrams import Mailbox
from lvsctl.traffic.listening import Listener, listening

IDLE_SECONDS = 900.0
"""How long a connection may say nothing: as long as IPVS keeps an established one."""

REQUEST_SECONDS = 30.0
"""How long a request's head may take, and how long a body or an answer may stand still."""

PAUSE_SECONDS = 1.0
"""After running out of descriptors: how long until accepting is tried again, at the latest."""

ACCEPT_BATCH = 256
"""Connections accepted from one listener before the other sockets get their turn."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def responder_of(lab: Lab) -> Respond:
    """Return what serves the lab's real servers, once it has a process of its own."""

    def respond(listens: tuple[Listen, ...], ready: Ready) -> None:
        wanted = [
            Listener(one.node, one.netns, one.protocol, one.port, ipv6=ipv6)
            for one in listens
            for ipv6 in ((False, True) if lab.ipv6 else (False,))
        ]
        with listening(wanted) as sockets:
            ready(None)  # the kernel queues connections until they are accepted
            give_up_root()  # before the first byte is read
            serve(sockets)

    return respond


def serve(sockets: Sequence[tuple[str, socket.socket]]) -> None:
    """Answer what comes to the ``sockets`` (``listening``), each a node's, until SIGTERM.

    For the main thread of a process: takes over SIGTERM meanwhile.
    """
    with ExitStack() as stack:
        loop = stack.enter_context(Loop())
        speakers = {node: Speaker(node) for node, _ in sockets}
        for node, sock in sockets:
            loop.add(sock, speakers[node])
        wake, signalled = socket.socketpair()
        stack.enter_context(wake).setblocking(False)
        stack.enter_context(signalled).setblocking(False)
        loop.stop_on(wake)
        # epoll goes on after a signal (PEP 475): what Python writes to ``signalled`` ends the wait.
        before = signal.signal(signal.SIGTERM, lambda _number, _frame: loop.stop())
        stack.callback(signal.signal, signal.SIGTERM, before)
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(signalled.fileno()))
        loop.run()


class _Handler(Interface):
    def ready(self, events: int, /) -> None:
        """Do what can be done without waiting."""


class Loop:
    """Sockets and who handles them, and the deadlines of the connections.

    Everybody in a queue of deadlines has the same time, so that the first is always the
    next one due: no timer costs more than moving to the end.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, _Handler] = {}
        self._idle: OrderedDict[Connection, float] = OrderedDict()
        self._busy: OrderedDict[Connection, float] = OrderedDict()
        self._paused: set[_Door] = set()
        self._resume_at = 0.0
        self._now = time.monotonic()
        self._running = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for handler in list(self._handlers.values()):
            if isinstance(handler, Connection):
                handler.close()
        self._epoll.close()

    def add(self, sock: socket.socket, speaker: Speaker) -> None:
        """Answer what comes to ``sock``, which stays the caller's, in the voice of ``speaker``."""
        stream = sock.type == socket.SOCK_STREAM
        self._handlers[sock.fileno()] = (
            _Door(self, sock, speaker) if stream else Mailbox(sock, speaker)
        )
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def stop_on(self, wake: socket.socket) -> None:
        """Let a byte on ``wake`` end the wait, so that a signal is seen at once."""
        self._handlers[wake.fileno()] = _Bell(wake)
        self._epoll.register(wake.fileno(), select.EPOLLIN)

    def stop(self) -> None:
        """Let ``run`` return after what it is doing."""
        self._running = False

    def run(self) -> None:
        """Answer until ``stop``."""
        while self._running:
            events = self._epoll.poll(self._timeout(), 512)
            self._now = time.monotonic()
            for fd, happened in events:
                # Closed earlier in this batch: gone. Its number given to a new connection:
                # that one looks, finds nothing, and waits.
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler.ready(happened)
            self._expire()

    def watch(self, connection: Connection, events: int, *, known: bool) -> None:
        fd = connection.sock.fileno()
        if known:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
            self._handlers[fd] = connection

    def rest(self, connection: Connection) -> None:
        self._busy.pop(connection, None)
        self._idle[connection] = self._now + IDLE_SECONDS
        self._idle.move_to_end(connection)

    def expect(self, connection: Connection, *, renew: bool) -> None:
        self._idle.pop(connection, None)
        if renew or connection not in self._busy:
            self._busy[connection] = self._now + REQUEST_SECONDS
            self._busy.move_to_end(connection)

    def forget(self, connection: Connection) -> None:
        # epoll forgets a descriptor by itself when it is closed (epoll(7)).
        if self._handlers.pop(connection.sock.fileno(), None) is not None:
            self._idle.pop(connection, None)
            self._busy.pop(connection, None)
        if self._paused:
            self._resume_at = self._now

    def pause(self, door: _Door) -> None:
        """Nothing can be accepted now: try again when a connection ends, or in a while.

        Watching on would wake the loop at once, again and again.
        """
        self._epoll.unregister(door.sock.fileno())
        self._paused.add(door)
        self._resume_at = self._now + PAUSE_SECONDS

    def _timeout(self) -> float | None:
        """Seconds until the first deadline; None without one."""
        due = [next(iter(queue.values())) for queue in (self._idle, self._busy) if queue]
        if self._paused:
            due.append(self._resume_at)
        return max(0.0, min(due) - self._now) if due else None

    def _expire(self) -> None:
        for queue in (self._idle, self._busy):
            while queue:
                connection, deadline = next(iter(queue.items()))
                if deadline > self._now:
                    break
                connection.expire()
        if self._paused and self._resume_at <= self._now:
            for door in self._paused:
                self._epoll.register(door.sock.fileno(), select.EPOLLIN)
            self._paused.clear()


class _Door:
    """A listening socket: lets connections in."""

    def __init__(self, loop: Loop, sock: socket.socket, speaker: Speaker) -> None:
        self.sock = sock
        self._kind = int(sock.family), int(sock.type), sock.proto
        # What socket.accept calls. The rest of that, enumerations of the family and the type and
        # a question about time limits, takes longer than accept(2) itself.
        self._accept: Callable[[], tuple[int, tuple[object, ...]]] = getattr(sock, "_accept")  # noqa: B009 (it is in no stub)
        self._loop = loop
        self._speaker = speaker

    def ready(self, _events: int = 0) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                fd, peer = self._accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._loop.pause(self)
                    return
                continue  # the client is gone already; accept(2) passes its errors on
            sock = socket.SocketType(*self._kind, fd)
            Connection(self._loop, sock, self._speaker, written(peer)).ready()


class _Bell:
    """The socket to which Python writes when a signal comes."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def ready(self, _events: int = 0) -> None:
        os.read(self._sock.fileno(), 4096)
