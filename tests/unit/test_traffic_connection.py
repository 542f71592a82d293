"""One connection of the responder, over a socket pair: no namespace, no network."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator

import pytest

from lvsctl.traffic.connection import Connection, ConnectionOwner
from lvsctl.traffic.http import ResponseBuilder, pattern
from lvsctl.traffic.responder import IDLE_SECONDS, REQUEST_SECONDS, Loop

GET = b"GET / HTTP/1.1\r\nHost: v\r\n\r\n"
LINE = b"rs1 answered on vip:80, request from cip:1\n"


class FakeLoop(ConnectionOwner):
    """Calls ``ready`` as epoll would, and notes what the connection asked for."""

    def __init__(self) -> None:
        self.client, server = socket.socketpair()
        self.client.setblocking(False)
        self.events, self.waiting_for, self.closed = 0, "", False
        self.connection = Connection(self, server, ResponseBuilder("rs1"), "cip:1")
        self.connection._local = "vip:80"  # a socket pair has no addresses

    def watch(self, connection: Connection, events: int, *, known: bool) -> None:  # noqa: ARG002 as in Host
        assert known == bool(self.events)
        self.events = events

    def rest(self, connection: Connection) -> None:  # noqa: ARG002 as in Host
        self.waiting_for = "anything"

    def expect(self, connection: Connection, *, renew: bool) -> None:  # noqa: ARG002 as in Host
        self.waiting_for = "progress" if renew else "head"

    def later(self, connection: Connection, seconds: float) -> None:  # noqa: ARG002 as in Host
        self.delay = seconds

    def forget(self, connection: Connection) -> None:  # noqa: ARG002 as in Host
        self.closed = True

    def say(self, data: bytes) -> bytes:
        """Send ``data``; all that comes back."""
        self.client.sendall(data)
        self.turn()
        heard = self.heard()
        part = heard
        while part:  # more than a socket's buffer holds
            self.turn()
            part = self.heard()
            heard += part
        return heard

    def turn(self) -> None:
        if not self.closed and self.events != select.EPOLLHUP:
            self.connection.ready(self.events)

    def heard(self) -> bytes:
        parts = []
        try:
            while part := self.client.recv(1 << 20):
                parts.append(part)
        except BlockingIOError:
            pass
        return b"".join(parts)


@pytest.fixture
def loop() -> Iterator[FakeLoop]:
    fake = FakeLoop()
    yield fake
    fake.client.close()
    fake.connection.sock.close()


def test_keep_alive(loop: FakeLoop) -> None:
    for _ in range(3):
        assert loop.say(GET).endswith(LINE)
        assert (loop.closed, loop.waiting_for) == (False, "anything")


def test_an_answer_may_be_late_although_the_client_has_shut_down_its_side(loop: FakeLoop) -> None:
    size = 4 * 1024 * 1024  # more than the sockets' buffers hold
    assert loop.say(GET).endswith(LINE)
    assert loop.say(b"GET /after/2.5/bytes/%d HTTP/1.0\r\n\r\n" % size) == b""
    assert (loop.delay, loop.events) == (2.5, select.EPOLLHUP)
    loop.client.shutdown(socket.SHUT_WR)
    heard = b""
    loop.connection.ready()  # its time has come
    while not loop.closed:
        loop.turn()
        heard += loop.heard()
    assert heard.endswith(pattern(0, size))


def test_close(loop: FakeLoop) -> None:
    assert loop.say(GET[:-2] + b"Connection: close\r\n\r\n").endswith(LINE)
    assert loop.closed


def test_pipelined(loop: FakeLoop) -> None:
    assert loop.say(GET * 1500).count(LINE) == 1500
    assert loop.waiting_for == "anything"


def test_pipelined_streams_keep_their_order(loop: FakeLoop) -> None:
    get = b"GET /bytes/%d HTTP/1.1\r\nHost: v\r\n\r\n"
    heard = loop.say(b"".join(get % n for n in range(1, 200)))
    for n in range(1, 200):
        _, _, heard = heard.partition(b"\r\n\r\n")
        assert heard.startswith(pattern(0, n))
        heard = heard[n:]
    assert heard == b""


def test_a_head_that_drips_in_gets_no_more_time(loop: FakeLoop) -> None:
    for i in range(len(GET) - 1):
        assert loop.say(GET[i : i + 1]) == b""
        assert loop.waiting_for == "head"
    assert loop.say(GET[-1:]).endswith(LINE)
    assert loop.waiting_for == "anything"


def test_too_slow(loop: FakeLoop) -> None:
    loop.say(GET[:9])
    loop.connection.expire()
    assert loop.closed
    assert loop.heard().startswith(b"HTTP/1.1 408 ")


def test_idle_ends_without_a_word(loop: FakeLoop) -> None:
    loop.say(GET)
    loop.connection.expire()
    assert (loop.closed, loop.heard()) == (True, b"")


def test_continue_is_said_once(loop: FakeLoop) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: v\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    assert loop.say(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert loop.say(b"1234") == b""
    assert loop.waiting_for == "progress"
    assert b'"length": 9' in loop.say(b"56789")


def test_after_nonsense_what_still_comes_is_thrown_away(loop: FakeLoop) -> None:
    heard = loop.say(GET + b"\x00" + GET)
    assert heard.count(LINE) == 1
    assert b"HTTP/1.1 400 Bad Request" in heard
    # Our direction has ended, the other is still read: no RST destroys the answer.
    assert not loop.closed
    assert loop.say(b"x" * 10000) == b""
    loop.client.shutdown(socket.SHUT_WR)
    loop.turn()
    assert loop.closed


def test_who_does_not_read_is_not_read_from(loop: FakeLoop) -> None:
    loop.say(GET)
    assert loop.events == select.EPOLLIN
    loop.client.sendall(b"GET /bytes/9999999 HTTP/1.1\r\nHost: v\r\n\r\n" + GET)
    loop.turn()
    assert loop.events == select.EPOLLOUT
    assert loop.waiting_for == "progress"
    assert not loop.connection._out
    heard = b""
    while not heard.endswith(LINE):
        heard += loop.heard()
        loop.turn()
    body = heard.partition(b"\r\n\r\n")[2]
    assert body.startswith(pattern(0, 9999999) + b"HTTP/1.1 200 OK")
    assert loop.events == select.EPOLLIN


def test_the_client_leaves_at_any_point() -> None:
    for data in (b"", GET[:5], GET, b"GET /bytes/9999999 HTTP/1.1\r\nHost: v\r\n\r\n", b"\x00"):
        loop = FakeLoop()
        loop.say(data)
        loop.client.close()
        loop.turn()
        assert loop.closed
        assert loop.connection.sock.fileno() == -1


def test_out_of_descriptors_the_loop_waits_instead_of_spinning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Loop() as loop, socket.socket() as listener:
        # On no address: the door is watched, and nothing but this test makes it ready.
        loop.add(listener, ResponseBuilder("rs1"))
        (handler,) = loop._handlers.values()

        def exhausted() -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(handler, "_accept", exhausted)
        handler.ready(select.EPOLLIN)
        assert loop._epoll.poll(0) == []  # an unbound socket would report EPOLLHUP if watched
        assert 0 < (loop._timeout() or 0) <= 1
        left = FakeLoop()
        loop.forget(left.connection)  # a descriptor is free again
        assert loop._timeout() == 0
        loop._expire()
        assert loop._epoll.poll(0)
        left.client.close()
        left.connection.close()


def test_one_deadline_each() -> None:
    first, second = FakeLoop(), FakeLoop()
    with Loop() as loop:
        for at, fake in ((100.0, first), (107.0, second)):
            loop._now = at
            loop.watch(fake.connection, select.EPOLLIN, known=False)
            loop.rest(fake.connection)
        assert loop._timeout() == 100 + IDLE_SECONDS - 107
        loop.expect(first.connection, renew=False)
        loop._now = 110.0
        loop.expect(first.connection, renew=False)
        assert loop._timeout() == 107 + REQUEST_SECONDS - 110
        loop.expect(first.connection, renew=True)
        assert loop._timeout() == REQUEST_SECONDS
        loop.rest(first.connection)  # now behind the other one
        assert loop._timeout() == 107 + IDLE_SECONDS - 110
        loop.forget(second.connection)
        assert loop._timeout() == IDLE_SECONDS
        loop.forget(first.connection)
        assert loop._timeout() is None
        assert not loop._handlers
    for fake in (first, second):
        fake.client.close()
        fake.connection.sock.close()


def test_a_reset_is_no_error() -> None:
    loop = FakeLoop()
    loop.client.sendall(GET)
    loop.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    loop.client.close()
    loop.turn()
    loop.turn()
    assert loop.closed
