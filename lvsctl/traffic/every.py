"""A client that asks at a fixed interval, whatever became of its earlier requests.

So an outage can be measured: a client that waits for an answer would ask nothing meanwhile.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

from lvsctl.kernel import netns
from lvsctl.model.addresses import IPAddress
from lvsctl.traffic.replies import parse_single_reply

_REQUEST = b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n"
MOST_OPEN = 500
"""Requests that may wait for an answer: the oldest is given up for a new one."""


class Asked(NamedTuple):
    """A request: when it was sent and answered, in seconds since the epoch (0: not answered).

    ``server`` is the real server that answered; empty: none, or it did not say.
    """

    sent: float
    answered: float
    server: str = ""


@dataclass(slots=True)
class _Open:
    sock: socket.socket
    sent: float
    asked: bool = False


@dataclass(slots=True)
class SteadyClient:
    """Asks ``host``:``port`` over TCP every ``interval`` seconds inside the ``with`` block.

    From a thread of its own, in the namespace ``name``; each request has its own connection.
    """

    name: str
    host: IPAddress
    port: int
    interval: float
    asked: list[Asked] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    """When each request was sent, also of those that still wait."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _error: BaseException | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="lvsctl-steady", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def wait_for_answers(self, since: float, count: int, seconds: float) -> bool:
        """Wait until ``count`` requests that were sent after ``since`` are answered at once.

        Returns False where that takes longer than ``seconds``.
        """

        def enough() -> bool:
            good = [one for one in self.asked if one.sent > since and is_prompt(one)]
            return len(good) >= count or self._error is not None

        with self.changed:
            return self.changed.wait_for(enough, seconds)

    def wait_for_those_before(self, when: float, seconds: float) -> bool:
        """Wait until every request that was sent before ``when`` is over.

        Returns False where that takes longer than ``seconds``.
        """
        count = sum(sent < when for sent in self.sent)

        def enough() -> bool:
            over = sum(one.sent < when for one in self.asked)
            return over >= count or self._error is not None

        with self.changed:
            return self.changed.wait_for(enough, seconds)

    def _run(self) -> None:
        try:
            with netns.enter(self.name):
                self._ask()
        except BaseException as error:  # noqa: BLE001 (raised by __exit__)
            self._error = error

    def _ask(self) -> None:
        waiting: dict[int, _Open] = {}
        poll = select.epoll()
        due = time.monotonic()
        try:
            while not self._stop.is_set():
                now = time.monotonic()
                if now >= due:
                    due = max(due + self.interval, now)
                    self._open(poll, waiting)
                for fd, _ in poll.poll(max(0.0, due - time.monotonic())):
                    self._go_on(poll, waiting, fd)
        finally:
            for one in waiting.values():
                self._note(one, 0.0)
                one.sock.close()
            poll.close()

    def _open(self, poll: select.epoll, waiting: dict[int, _Open]) -> None:
        if len(waiting) >= MOST_OPEN:
            self._close(poll, waiting, next(iter(waiting)), 0.0)
        family = socket.AF_INET6 if self.host.version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        one = _Open(sock, time.time())
        self.sent.append(one.sent)
        if sock.connect_ex((str(self.host), self.port)) not in (0, _IN_PROGRESS):
            self._note(one, 0.0)
            sock.close()
            return
        waiting[sock.fileno()] = one
        poll.register(sock, select.EPOLLOUT)

    def _go_on(self, poll: select.epoll, waiting: dict[int, _Open], fd: int) -> None:
        one = waiting[fd]
        try:
            if not one.asked:
                one.sock.send(_REQUEST)
                one.asked = True
                poll.modify(fd, select.EPOLLIN)
                return
            data = one.sock.recv(4096)
        except OSError:
            self._close(poll, waiting, fd, 0.0)
            return
        answered = time.time() if data.startswith(b"HTTP/") else 0.0
        reply = parse_single_reply(data) if answered else None
        self._close(poll, waiting, fd, answered, reply[1].node if reply else "")

    def _close(
        self,
        poll: select.epoll,
        waiting: dict[int, _Open],
        fd: int,
        answered: float,
        server: str = "",
    ) -> None:
        one = waiting.pop(fd)
        with contextlib.suppress(OSError):
            poll.unregister(fd)
        one.sock.close()
        self._note(one, answered, server)

    def _note(self, one: _Open, answered: float, server: str = "") -> None:
        with self.changed:
            self.asked.append(Asked(one.sent, answered, server))
            self.changed.notify_all()


_IN_PROGRESS = 115
"""EINPROGRESS."""

PROMPT = 0.5
"""Seconds within which an answer comes that needed no second packet: a SYN is sent again after
one second (RFC 6298, section 2)."""


def is_prompt(one: Asked) -> bool:
    """Whether a request was answered without having been sent again."""
    return 0 < one.answered <= one.sent + PROMPT
