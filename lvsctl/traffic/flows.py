"""Flows that run while something happens to a lab: each keeps a record of what its client saw.

One thread in the client's namespace runs them all, so that none waits for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

from lvsctl.errors import LabError
from lvsctl.kernel import netns
from lvsctl.model.addresses import Endpoint
from lvsctl.model.evidence import Failure
from lvsctl.model.flows import FlowKind, FlowRecord, Request
from lvsctl.model.service import Protocol, VipPort
from lvsctl.traffic.attempts import FAILURES, datagram, sip_request
from lvsctl.traffic.replies import ReplyReader, parse_address, parse_datagram

INTERVAL = 0.1
"""Seconds between two requests of a flow."""

ATTEMPTS = 32
"""Connections that are opened until one is with the wanted real server: a scheduler that hashes
the client's port finds each of 8 with one in 70."""

KEEPALIVE_SECONDS, KEEPALIVE_PROBES = 1, 2
"""An idle connection is probed after so many seconds and again every so many; it ends after so
many probes without an acknowledgement (tcp(7), TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT)."""

LATER = 0.5
"""Seconds after the silence when a late answer comes."""

LATE_BYTES = 1024 * 1024
"""Bytes of a late answer: so many that the server has to wait for the client's acknowledgements."""

REUSED = 6
"""Connections of one kind: enough to see that a scheduler spreads them."""

_ANSWER_SECONDS = 0.3
"""How long a client waits for the answer to a datagram before it sends the next one."""

_LAST_SECONDS = 1.0
"""How long the last request of an idle connection may take."""

PORTS = range(32768, 61000)
"""Where the ports of clients are from: Linux's own (ip-sysctl.rst, ip_local_port_range)."""

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""struct linger: closing resets the connection, so that its entry in IPVS soon expires."""


class Wanted(NamedTuple):
    """A flow to run: its kind, and the service with the endpoint that it asks."""

    kind: FlowKind
    service: str
    endpoint: VipPort
    sip: bool = False
    """Whether requests are SIP's, of one call for each port."""


@dataclass(slots=True)
class _Running:
    """A flow, and what came of it so far."""

    wanted: Wanted
    ports: Iterator[int]
    """Ports that no other flow has used."""
    clients: list[Endpoint] = field(default_factory=list)
    server: str = ""
    requests: list[Request] = field(default_factory=list)
    trouble: str = ""
    again: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the flow is to go on after the real server was taken out."""

    def record(self) -> FlowRecord:
        kind, service, *_ = self.wanted
        return FlowRecord(
            kind, service, tuple(self.clients), self.server, tuple(self.requests), self.trouble
        )


class Flows:
    """Runs flows inside the ``with`` block, from the namespace ``name``.

    Each begins at the real server ``server``; where that is empty, at the one that answers first.
    ``wait_until_begun`` returns once all have; ``records`` are what the clients saw, complete once
    the block is left.
    """

    def __init__(
        self,
        name: str,
        server: str,
        wanted: tuple[Wanted, ...],
        used: Collection[int] = (),
        *,
        idle: float = 0.0,
    ) -> None:
        """``used`` are ports that the client has entries of in IPVS's table: no flow uses them.

        ``idle``: after so many seconds ``go_on`` lets flows go on that are silent until then.
        """
        self._name = name
        self._idle = idle
        self._server = server
        free = [port for port in PORTS if port not in used]
        ports = iter(random.sample(free, len(free)))
        self._flows = [_Running(one, ports) for one in wanted]
        self._begun = threading.Semaphore(0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._failed = threading.Event()
        self._over = asyncio.Event()  # bound to a loop when it is first awaited
        self._thread = threading.Thread(target=self._run, name="lvsctl-flows", daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._over.set)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    @property
    def records(self) -> tuple[FlowRecord, ...]:
        """What the clients saw."""
        return tuple(one.record() for one in self._flows)

    def wait_until_begun(self, seconds: float) -> None:
        """Wait until every flow has an answer of the real server, or has found that it gets none.

        Raises LabError after ``seconds``.
        """
        deadline = time.monotonic() + seconds
        for _ in self._flows:
            if not self._begun.acquire(timeout=max(0.0, deadline - time.monotonic())):
                late = [str(one.wanted.kind) for one in self._flows if not one.server]
                raise LabError(
                    f"no answer within {seconds:g} s for: {', '.join(late)}",
                    hint="lvsctl diagnose says why",
                )

    def wait_until_over(self, seconds: float) -> None:
        """Wait until every flow has ended, at most ``seconds``."""
        self._ended.wait(seconds)

    def wait_until(self, when: float) -> None:
        """Wait until ``when``, in seconds since the epoch. Raises what ended the flows' thread."""
        self._failed.wait(max(0.0, when - time.time()))
        if self._error is not None:
            raise self._error

    def go_on(self, *kinds: FlowKind) -> None:
        """Let flows of ``kinds`` (default: all) go on that wait: be idle no longer, use a port
        again."""
        for one in self._flows:
            if not kinds or one.wanted.kind in kinds:
                self._call(one.again.set)

    def _call(self, work: Callable[[], object]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: its thread has ended
                self._loop.call_soon_threadsafe(work)

    def _run(self) -> None:
        try:
            with netns.enter(self._name):
                asyncio.run(self._run_all())
        except BaseException as error:  # noqa: BLE001 (raised by __exit__)
            self._error = error
            self._failed.set()
        finally:
            self._ready.set()
            self._ended.set()
            for _ in self._flows:
                self._begun.release()

    async def _run_all(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        tasks = [asyncio.create_task(self._run_one(one)) for one in self._flows]
        every = asyncio.gather(*tasks, return_exceptions=True)
        every.add_done_callback(lambda _: self._ended.set())
        await self._over.wait()
        # An idle connection asks once more; the others are over.
        idle = [t for t, one in zip(tasks, self._flows, strict=True) if _is_idle(one)]
        if idle:
            await asyncio.wait(idle, timeout=_LAST_SECONDS)
        for task in tasks:
            task.cancel()
        for result in await every:
            if isinstance(result, Exception):
                raise result

    async def _run_one(self, one: _Running) -> None:
        try:
            await _RUN[one.wanted.kind](self, one)
        finally:
            if not one.server:
                self._begun.release()

    def _has_begun(self, one: _Running) -> None:
        one.server = self._server or one.requests[-1].server
        self._begun.release()

    # ── kinds of flow ────────────────────────────────────────────────────────────────────────

    async def held(self, one: _Running) -> None:
        """Ask over one connection until it fails."""
        sock = await self._at_the_server(one, keep=True)
        if sock is None:
            return
        self._has_begun(one)
        with sock:
            while not one.requests[-1].error:
                await asyncio.sleep(INTERVAL)
                await _ask(one, sock, keep=True)

    async def keepalive(self, one: _Running) -> None:
        """Be idle until the connection fails, or until the end: then ask once more."""
        sock = await self._at_the_server(one, keep=True)
        if sock is None:
            return
        self._has_begun(one)
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
            began = time.time()
            received = asyncio.create_task(_loop().sock_recv(sock, 1))
            over = asyncio.create_task(one.again.wait() if self._idle else self._over.wait())
            try:
                await asyncio.wait((received, over), return_when=asyncio.FIRST_COMPLETED)
                if received.done():
                    problem = _failure_of(received) or Failure.CLOSED
                    one.requests.append(Request(began, time.time(), "", problem))
                    return
            finally:
                received.cancel()
                over.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await received
            await _ask(one, sock, keep=True)

    async def new(self, one: _Running) -> None:
        """Open a connection for each request, whatever became of the earlier ones."""
        if one.wanted.kind is FlowKind.PERSISTENT:
            sock = await self._at_the_server(one, keep=False)
            if sock is None:
                return
            sock.close()
        self._has_begun(one)  # `new` is wherever the scheduler sends it
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(_request_once(one))
                await asyncio.sleep(INTERVAL)

    async def reused_port(self, one: _Running) -> None:
        """Close connections, and open others from their ports once the server is out."""
        for _ in range(REUSED):
            sock = await self._at_the_server(one, keep=False)
            if sock is None:
                return
            sock.close()  # after the server: so the port is free at once, and not in TIME_WAIT
        self._has_begun(one)
        await one.again.wait()
        await asyncio.gather(*(_request_once(one, client.port) for client in one.clients))

    async def udp(self, one: _Running) -> None:
        """Send datagrams from one port."""
        sock = await self._flow_at_the_server(one)
        if sock is None:
            return
        self._has_begun(one)
        with sock:
            while True:
                await asyncio.sleep(INTERVAL)
                await _ask_datagram(one, sock)

    async def idle(self, one: _Running) -> None:
        """Ask over several connections, be silent, and ask over each once more."""
        with contextlib.ExitStack() as held:
            socks = []
            for _ in range(REUSED):
                sock = await self._at_the_server(one, keep=True)
                if sock is None:
                    return
                socks.append(held.enter_context(sock))
            self._has_begun(one)
            await one.again.wait()
            await asyncio.gather(*(_ask(one, sock, keep=True) for sock in socks))

    async def idle_udp(self, one: _Running) -> None:
        """The same with datagrams."""
        with contextlib.ExitStack() as held:
            socks = []
            for _ in range(REUSED):
                sock = await self._flow_at_the_server(one)
                if sock is None:
                    return
                socks.append(held.enter_context(sock))
            self._has_begun(one)
            await one.again.wait()
            await asyncio.gather(*(_ask_datagram(one, sock) for sock in socks))

    async def half_closed(self, one: _Running) -> None:
        """Ask for what the server gives late, and shut our side of the connection down."""
        sock = await self._at_the_server(one, keep=True)
        if sock is None:
            return
        with sock:
            path = f"/after/{self._idle + LATER:g}/bytes/{LATE_BYTES}"
            await _loop().sock_sendall(sock, f"GET {path} HTTP/1.0\r\n\r\n".encode())
            sock.shutdown(socket.SHUT_WR)
            self._has_begun(one)
            await one.again.wait()
            index, reader, whole = _begin(one), ReplyReader(), False
            try:
                while not whole and (data := await _loop().sock_recv(sock, 65536)):
                    whole = reader.feed(data)
            except OSError as error:
                _end(one, index, error=_failure(error))
            else:
                _end(one, index, server=self._server, error="" if whole else Failure.CLOSED)

    async def _at_the_server(self, one: _Running, *, keep: bool) -> socket.socket | None:
        """Open connections until one is answered by the real server; None: none is."""
        for _ in range(ATTEMPTS):
            one.requests.clear()
            sock = await _request(one, keep=keep)
            if sock is not None and self._server in ("", one.requests[-1].server):
                one.clients.append(_local(sock))
                return sock
            if sock is not None:
                sock.close()
        last = one.requests[-1]
        one.trouble = f"{last.error}: no answer" if last.error else _never(self._server)
        return None

    async def _flow_at_the_server(self, one: _Running) -> socket.socket | None:
        """The same with datagrams, each from another port."""
        for _ in range(ATTEMPTS):
            one.requests.clear()
            sock = _socket(one)
            sock.connect((str(one.wanted.endpoint.vip), one.wanted.endpoint.port))
            answer = await _ask_datagram(one, sock)
            if answer.server == self._server:
                one.clients.append(_local(sock))
                return sock
            sock.close()
        one.trouble = _never(self._server)
        return None


def _never(server: str) -> str:
    return f"none of {ATTEMPTS} attempts got to {server}: the scheduler chose others"


def _is_idle(one: _Running) -> bool:
    return one.wanted.kind is FlowKind.KEEPALIVE


_RUN: dict[FlowKind, Callable[[Flows, _Running], Awaitable[None]]] = {
    FlowKind.HELD: Flows.held,
    FlowKind.KEEPALIVE: Flows.keepalive,
    FlowKind.NEW: Flows.new,
    FlowKind.PERSISTENT: Flows.new,
    FlowKind.REUSED_PORT: Flows.reused_port,
    FlowKind.UDP: Flows.udp,
    FlowKind.IDLE: Flows.idle,
    FlowKind.HALF_CLOSED: Flows.half_closed,
    FlowKind.IDLE_UDP: Flows.idle_udp,
}


# ── requests ─────────────────────────────────────────────────────────────────────────────────


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def _socket(one: _Running, port: int = 0) -> socket.socket:
    """Return a socket at ``port``; without one, at a port that IPVS does not know yet."""
    endpoint = one.wanted.endpoint
    family = socket.AF_INET6 if endpoint.version == 6 else socket.AF_INET
    kind = socket.SOCK_DGRAM if endpoint.protocol is Protocol.UDP else socket.SOCK_STREAM
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    if port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
        return sock
    while True:
        try:
            sock.bind(("", next(one.ports)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                sock.close()
                raise
        except StopIteration:  # all are used: the kernel chooses one
            return sock
        else:
            return sock


def _local(sock: socket.socket) -> Endpoint:
    address, port = sock.getsockname()[:2]
    return Endpoint(parse_address(address), port)


async def _request(one: _Running, port: int = 0, *, keep: bool = False) -> socket.socket | None:
    """Open a connection, from ``port`` if given, and ask; return it if that was answered."""
    endpoint = one.wanted.endpoint
    index = _begin(one)
    sock = _socket(one, port)
    try:
        await _loop().sock_connect(sock, (str(endpoint.vip), endpoint.port))
        await _exchange(one, index, sock, keep=keep)
    except OSError as error:
        _end(one, index, error=_failure(error))
    except BaseException:
        sock.close()
        raise
    if one.requests[index].answered:
        return sock
    sock.close()
    return None


async def _request_once(one: _Running, port: int = 0) -> None:
    """Ask over a connection of its own."""
    sock = await _request(one, port)
    if sock is not None:
        sock.close()


async def _ask(one: _Running, sock: socket.socket, *, keep: bool) -> None:
    """Send a request over a connection, and note what came of it."""
    index = _begin(one)
    try:
        await _exchange(one, index, sock, keep=keep)
    except OSError as error:
        _end(one, index, error=_failure(error))


async def _exchange(one: _Running, index: int, sock: socket.socket, *, keep: bool) -> None:
    close = "" if keep else "Connection: close\r\n"
    host = Endpoint(one.wanted.endpoint.vip, one.wanted.endpoint.port)
    await _loop().sock_sendall(sock, f"GET / HTTP/1.1\r\nHost: {host}\r\n{close}\r\n".encode())
    reader, whole = ReplyReader(), False
    while True:
        data = await _loop().sock_recv(sock, 65536)
        whole = whole or (reader.feed(data) if data else reader.end())
        if whole and (keep or not data):  # without keep, the server closes first
            _end(one, index, server=reader.said.node)
            if keep:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            return
        if not data:
            _end(one, index, error=Failure.CLOSED)
            return


async def _ask_datagram(one: _Running, sock: socket.socket) -> Request:
    index = _begin(one)
    endpoint = one.wanted.endpoint
    try:
        request = datagram(endpoint.port, f"/{index}")
        if one.wanted.sip:
            client = _local(sock)
            call = f"{client.port:05d}-{id(one):x}"
            server = Endpoint(endpoint.vip, endpoint.port)
            request = sip_request(server, client, call, index + 1)
        await _loop().sock_sendall(sock, request)
        async with asyncio.timeout(_ANSWER_SECONDS):
            data = await _loop().sock_recv(sock, 65536)
        _end(one, index, server=parse_datagram(data).node)
    except TimeoutError:
        pass  # it stays without an end
    except OSError as error:
        _end(one, index, error=_failure(error))
    return one.requests[index]


def _begin(one: _Running) -> int:
    one.requests.append(Request(time.time()))
    return len(one.requests) - 1


def _end(one: _Running, index: int, *, server: str = "", error: str = "") -> None:
    one.requests[index] = Request(one.requests[index].sent, time.time(), server, error)


def _failure(error: OSError) -> str:
    number = error.errno or 0
    if isinstance(error, TimeoutError):
        number = errno.ETIMEDOUT
    return FAILURES.get(number, os.strerror(number).lower())


def _failure_of(task: asyncio.Task[bytes]) -> str:
    error = task.exception()
    if error is None:
        return ""
    if isinstance(error, OSError):
        return _failure(error)
    raise error
