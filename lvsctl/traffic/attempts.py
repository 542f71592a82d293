"""The client's event loop: many concurrent requests, each with a timeout."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lvsctl import __version__
from lvsctl.errors import HostError
from lvsctl.kernel.paths import raise_file_limit
from lvsctl.model import dns, sip
from lvsctl.model.addresses import Endpoint, IPAddress
from lvsctl.model.evidence import Exchange, Failure
from lvsctl.model.service import Protocol
from lvsctl.traffic.http import BadRequest
from lvsctl.traffic.replies import (
    ReplyReader,
    ServerIdentity,
    parse_address,
    parse_datagram,
    parse_single_reply,
)

RECEIVE_BYTES = 64 * 1024
SPARE_FILES = 64
"""Open files reserved for the rest of the process."""

_BINDS = 50
"""How many ports are tried before a port in use is accepted."""

FAILURES = {
    errno.ECONNREFUSED: Failure.REFUSED,
    errno.ECONNRESET: Failure.RESET,
    errno.EPIPE: Failure.RESET,
    errno.ETIMEDOUT: Failure.TIMED_OUT,
    errno.ENETUNREACH: Failure.NO_ROUTE,
    errno.EHOSTUNREACH: Failure.NO_ROUTE,
    errno.ENETDOWN: Failure.NO_ROUTE,
    errno.EACCES: Failure.PROHIBITED,
    errno.EPERM: Failure.PROHIBITED,
    errno.EADDRNOTAVAIL: Failure.NO_PORT,
    errno.EADDRINUSE: Failure.NO_PORT,
    errno.EAGAIN: Failure.NO_PORT,
}
_AT_ONCE = struct.pack("ii", 1, 0)
"""struct linger: closing discards unsent data and resets the connection (socket(7))."""

IMPATIENCE = 0.3
"""Seconds after which a request without an answer no longer delays the next one: requests that
hang are worth waiting for together, not one after the other. It is halved with each request that
hangs, down to eight times the mean time of an answer."""

_SLICE, _LATE = 0.25, 0.05
"""Seconds: how long to wait at a time, and how much later that may end without being a delay."""

ANY = 1 << 16
"""More requests at a time than there are ports."""

_CONNECTS = {0, errno.EINPROGRESS}
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go, and how. ``timeout`` in seconds; ``keep`` holds answered connections.

    ``impatience``: seconds after which a request hangs, and the next one no longer waits for it.
    ``burst``: how many that do not hang may then be on their way at the same time.
    ``connect``: seconds after which a connection that is not established is given up, where
    that is earlier than ``timeout``.

    ``avoid`` are local ports not to use: IPVS would assign a request from there to an earlier
    connection and schedule nothing.
    """

    host: IPAddress
    port: int
    protocol: Protocol
    timeout: float
    path: str
    keep: bool
    avoid: frozenset[int] = frozenset()
    impatience: float = IMPATIENCE
    burst: int = ANY
    connect: float = float("inf")
    call: str | None = None
    """None: no SIP. The Call-ID of every request; empty: each has its own."""

    def request(self, local: Endpoint | None = None) -> bytes:
        """Encode a request, of SIP for a client at ``local``."""
        if self.call is not None and local is not None:
            return sip_request(Endpoint(self.host, self.port), local, self.call)
        if self.protocol is Protocol.UDP:
            return datagram(self.port, self.path)
        close = "" if self.keep else "Connection: close\r\n"
        return (
            f"GET {self.path} HTTP/1.1\r\nHost: {Endpoint(self.host, self.port)}\r\n"
            f"User-Agent: lvsctl/{__version__}\r\nAccept: text/plain\r\n{close}\r\n"
        ).encode()


def datagram(port: int, path: str) -> bytes:
    """Encode a request over UDP: on port 53 a DNS query, on others a line with ``path``."""
    if port == dns.PORT:
        return dns.encode_query(int.from_bytes(os.urandom(2), "big"), "real-server", dns.TXT)
    return f"lvsctl {path}\n".encode()


def sip_request(server: Endpoint, client: Endpoint, call: str, number: int = 1) -> bytes:
    """Encode a request of SIP with the Call-ID ``call``; empty: one that no other has."""
    return sip.encode_options(server, client, call or new_call(), number)


def new_call() -> str:
    """Return a Call-ID that no other client has chosen (RFC 3261, section 8.1.1.4)."""
    return os.urandom(12).hex()


class _Attempt:
    """A request in progress. ``sent_at`` is CLOCK_REALTIME, ``began`` CLOCK_MONOTONIC.

    ``waited_before`` is what ``Attempts._waited`` was then: timeouts count from there.
    """

    __slots__ = (
        *("began", "established", "hangs", "index", "local", "reader", "sent_at"),
        *("sock", "status", "unsent", "waited_before"),
    )

    def __init__(
        self, index: int, sock: socket.SocketType, unsent: bytes, waited_before: float
    ) -> None:
        self.index = index
        self.sock = sock
        self.unsent = unsent
        self.local: Endpoint | None = None
        self.reader: ReplyReader | None = None
        self.status = 0
        self.established = False
        self.hangs = False
        self.sent_at = time.time()
        self.began = time.monotonic()
        self.waited_before = waited_before


class Attempts:
    """Sends ``count`` requests to ``target``, ``concurrency`` at once.

    ``run`` must be called by a thread in the client's namespace; a write to the eventfd
    ``stop`` ends it early.
    """

    def __init__(self, target: Target, count: int, concurrency: int, stop: int) -> None:
        self._target = target
        self._request = target.request()
        # Formatted once, because formatting an address takes as long as a system call.
        self._place = (str(target.host), target.port)
        self._kind = (
            socket.AF_INET6 if target.host.version == 6 else socket.AF_INET,
            (socket.SOCK_DGRAM if target.protocol is Protocol.UDP else socket.SOCK_STREAM)
            | socket.SOCK_NONBLOCK,
            target.protocol.number,
        )
        self._concurrency = concurrency
        self._stop = stop
        self._results: list[Exchange | None] = [None] * count
        self._started = 0
        # In order of their start.
        self._open: dict[int, _Attempt] = {}
        self._woke = 0.0
        self._waited = 0.0
        """Seconds so far, without delays: where a wait ends late, this thread was not scheduled in
        time, because the machine is busy, and neither were those who answer."""
        self._hanging = 0
        self._hung = 0
        self._answers = 0
        self._answering = 0.0
        self._kept: list[socket.SocketType] = []

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The finished requests, in the order in which they were sent."""
        return tuple(result for result in self._results if result is not None)

    def close(self) -> None:
        """Close every connection that is still open."""
        for sock in [*self._kept, *(attempt.sock for attempt in self._open.values())]:
            sock.close()
        self._kept.clear()
        self._open.clear()

    def make_room(self) -> None:
        """Raise the limit of open files as needed, up to the hard limit. Raises HostError."""
        count = len(self._results)
        most = count if self._target.keep else min(count, self._concurrency)
        try:
            raise_file_limit(most + SPARE_FILES)
        except OSError as error:
            raise _host_error(error) from error

    def run(self) -> None:
        """Send all requests and wait for the replies. Raises HostError."""
        with select.epoll() as epoll:
            epoll.register(self._stop, select.EPOLLIN)
            self._woke = time.monotonic()
            self._fill(epoll)
            while self._open:
                for fd, _ in self._wait(epoll):
                    if fd == self._stop:
                        return
                    self._go_on(epoll, self._open[fd])
                self._expire()
                self._fill(epoll)

    def _wait(self, epoll: select.epoll) -> list[tuple[int, int]]:
        asked = min(_SLICE, self._timeout())
        found = epoll.poll(asked, 512)
        before, self._woke = self._woke, time.monotonic()
        self._waited += min(self._woke - before, asked + _LATE)
        return found

    def _fill(self, epoll: select.epoll) -> None:
        """Start as many requests as allowed; all connect before the first one sends.

        Sending them together wakes an idle server once instead of once a request.
        """
        while begun := self._connect_all():
            for attempt in begun:
                self._ask(epoll, attempt)  # a failure makes room for another

    def _connect_all(self) -> list[_Attempt]:
        """Open as many connections as allowed; returns those that did not fail at once."""
        begun: list[_Attempt] = []
        while self._started < len(self._results):
            if len(self._open) - self._hanging >= self._concurrency:
                break
            if attempt := self._connect():
                begun.append(attempt)
        return begun

    def _connect(self) -> _Attempt | None:
        """Open the next connection; None if it failed at once."""
        try:
            # The C type is enough, and faster than socket.socket.
            sock = socket.SocketType(*self._kind)
        except OSError as error:
            raise _host_error(error) from error
        attempt = _Attempt(self._started, sock, self._request, self._waited)
        self._started += 1
        self._open[sock.fileno()] = attempt
        if self._target.avoid:
            bind_elsewhere(sock, self._target.avoid)
        number = sock.connect_ex(self._place)
        if number not in _CONNECTS:
            self._fail(attempt, OSError(number, os.strerror(number)))
            return None
        return attempt

    def _ask(self, epoll: select.epoll, attempt: _Attempt) -> None:
        """Send the request, or wait until the connection is established."""
        sock = attempt.sock
        address, port, *_ = sock.getsockname()
        attempt.local = Endpoint(parse_address(address.partition("%")[0]), port)
        if self._target.call is not None:
            attempt.unsent = self._target.request(attempt.local)
        try:
            # SCTP would take the request before the association exists, as if it were established.
            sent = self._target.protocol is not Protocol.SCTP and self._send(attempt)
            epoll.register(sock.fileno(), select.EPOLLIN if sent else select.EPOLLOUT)
        except OSError as error:
            self._fail(attempt, error)

    def _send(self, attempt: _Attempt) -> bool:
        """Send as much as possible; True once all is sent."""
        try:
            count = attempt.sock.send(attempt.unsent, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        attempt.unsent = attempt.unsent[count:]
        attempt.established = True
        return not attempt.unsent

    def _go_on(self, epoll: select.epoll, attempt: _Attempt) -> None:
        try:
            if attempt.unsent:
                if self._send(attempt):
                    epoll.modify(attempt.sock.fileno(), select.EPOLLIN)
                return
            data = attempt.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(attempt, error)
            return
        if self._target.protocol is Protocol.UDP:
            self._answered(epoll, attempt, parse_datagram(data))  # the link may repeat it
        else:
            self._read(epoll, attempt, data)

    def _read(self, epoll: select.epoll, attempt: _Attempt, data: bytes) -> None:
        """``data`` came in over a connection; none of it where the other side has ended."""
        reader = attempt.reader
        if reader is None:
            if reply := parse_single_reply(data):
                attempt.status, said = reply
                self._answered(epoll, attempt, said)
                return
            reader = attempt.reader = ReplyReader()
        try:
            whole = reader.feed(data) if data else reader.end()
        except BadRequest:
            self._finish(attempt, ServerIdentity(), Failure.MALFORMED)
            return
        attempt.status = reader.status
        if whole:
            self._answered(epoll, attempt, reader.said)
        elif not data:
            self._finish(attempt, ServerIdentity(), Failure.CLOSED)

    def _answered(self, epoll: select.epoll, attempt: _Attempt, said: ServerIdentity) -> None:
        if self._target.keep:
            epoll.unregister(attempt.sock.fileno())
        self._finish(attempt, said)

    def _fail(self, attempt: _Attempt, error: OSError) -> None:
        number = error.errno or 0
        if number in _EXHAUSTED:
            raise _host_error(error) from error
        self._finish(attempt, ServerIdentity(), FAILURES.get(number, os.strerror(number).lower()))

    def _finish(self, attempt: _Attempt, said: ServerIdentity, error: str = Failure.NONE) -> None:
        """The request is over: note what came of it, and close or keep its connection."""
        self._results[attempt.index] = exchange = Exchange(
            sent_at=attempt.sent_at,
            local=attempt.local,
            status=attempt.status,
            node=said.node,
            local_seen=said.local,
            peer_seen=said.peer,
            seconds=time.monotonic() - attempt.began,
            error=error,
        )
        if attempt.hangs:
            self._hanging -= 1
        if not error:
            self._answers += 1
            self._answering += exchange.seconds
        if error == Failure.TIMED_OUT:
            if not attempt.hangs:
                self._note_hanging()
            # Else the kernel would go on sending what was never acknowledged, for minutes, and
            # what that teaches it (a path's MTU) would be known to the next experiment.
            attempt.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        del self._open[attempt.sock.fileno()]
        if self._target.keep and not error:
            self._kept.append(attempt.sock)
        else:
            attempt.sock.close()

    def _timeout(self) -> float:
        """Seconds until the first deadline, or until more requests may start."""
        deadline = min(map(self._deadline, self._watched()))
        if self._started < len(self._results):
            first = next((one for one in self._open.values() if not one.hangs), None)
            if first is not None:
                deadline = min(deadline, first.waited_before + self._impatience())
        return max(0.0, deadline - self._waited)

    def _impatience(self) -> float:
        """Seconds after which a request hangs: less after each, unless answers take as long."""
        most = self._target.impatience
        usual = 8 * self._answering / self._answers if self._answers else 0.0
        return min(most, max(usual, most * 0.5**self._hung))

    def _watched(self) -> Iterable[_Attempt]:
        """The attempts of which one has the next deadline."""
        if self._target.connect < self._target.timeout:
            return self._open.values()
        return (next(iter(self._open.values())),)

    def _deadline(self, attempt: _Attempt) -> float:
        """The time waited after which the request is given up."""
        if attempt.established:
            return attempt.waited_before + self._target.timeout
        return attempt.waited_before + min(self._target.timeout, self._target.connect)

    def _expire(self) -> None:
        now = self._waited
        if self._started < len(self._results):
            self._notice_hanging(now)
        while self._open:
            late = [one for one in self._watched() if self._deadline(one) <= now]
            if not late:
                return
            for attempt in late:
                self._finish(attempt, ServerIdentity(), Failure.TIMED_OUT)

    def _notice_hanging(self, now: float) -> None:
        patience = self._impatience()
        for attempt in self._open.values():
            if attempt.hangs:
                continue
            if now - attempt.waited_before < patience:
                return
            attempt.hangs = True
            self._hanging += 1
            self._note_hanging()

    def _note_hanging(self) -> None:
        self._hung += 1
        self._concurrency = max(self._concurrency, self._target.burst)


def exchange_datagram(sock: socket.socket, request: bytes) -> Exchange:
    """Send ``request`` over a connected UDP socket that has a timeout, and wait for the reply."""
    address, port, *_ = sock.getsockname()
    local = Endpoint(parse_address(address.partition("%")[0]), port)
    sent_at, began = time.time(), time.monotonic()
    try:
        sock.send(request)
        said = parse_datagram(sock.recv(RECEIVE_BYTES))
    except OSError as error:
        lost = failed_exchange(error)
        return replace(lost, sent_at=sent_at, local=local, seconds=time.monotonic() - began)
    return Exchange(
        sent_at=sent_at,
        local=local,
        status=0,
        node=said.node,
        local_seen=said.local,
        peer_seen=said.peer,
        seconds=time.monotonic() - began,
    )


def failed_exchange(error: OSError) -> Exchange:
    """Return a request that failed before anything was sent."""
    number = error.errno or 0
    timed_out = isinstance(error, TimeoutError)
    why = Failure.TIMED_OUT if timed_out else FAILURES.get(number, os.strerror(number).lower())
    return Exchange(
        time.time(), None, 0, node="", local_seen=None, peer_seen=None, seconds=0.0, error=why
    )


def bind_elsewhere(sock: socket.SocketType, ports: frozenset[int]) -> None:
    """Bind to a port that the kernel chooses and that is none of ``ports``, if it finds one."""
    with contextlib.ExitStack() as taken:
        for _ in range(_BINDS):
            probe = taken.enter_context(socket.socket(sock.family, sock.type))
            try:
                probe.bind(("", 0))
            except OSError:  # no port is left: connecting fails with the same reason
                return
            port = probe.getsockname()[1]
            if port not in ports:
                probe.close()
                with contextlib.suppress(OSError):  # taken meanwhile: any port will do
                    sock.bind(("", port))
                return


def _host_error(error: OSError) -> HostError:
    return HostError(
        f"cannot open another connection: {error.strerror}",
        hint="`ulimit -n` shows how many files may be open; ask for fewer connections at once",
    )
