"""The responder: one process and one thread serve all real servers of a lab.

A socket belongs to the namespace in which it was opened, so one epoll loop can serve all real
servers. A connection needs few system calls: accept, recv, getsockname, send, close, and epoll
only if it must wait.
"""

from __future__ import annotations

import errno
import heapq
import os
import resource
import select
import shlex
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self
from typing import Protocol as Interface

from lvsctl.errors import KernelError, LabError, LvsctlError
from lvsctl.kernel import listeners, paths, processes
from lvsctl.kernel.apply import Respond
from lvsctl.kernel.netns import enter_for_good, in_thread, open_namespace, run_inside
from lvsctl.kernel.processes import Ready, give_up_root
from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab
from lvsctl.model.service import Protocol
from lvsctl.netlink import sockets as netlink_sockets
from lvsctl.resources.base import ELSEWHERE
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.traffic.connection import IP_PKTINFO, Connection, UdpServer, format_endpoint
from lvsctl.traffic.http import ResponseBuilder


class Listener(NamedTuple):
    """A port of a real server: every IPv4 address of ``node``, or with ``ipv6`` every IPv6 one.

    With ``address``, that one alone. ``netns`` is the namespace's name, as `ip netns` lists it.
    """

    node: str
    netns: str
    protocol: Protocol
    port: int
    ipv6: bool = False
    address: str = ""


@contextmanager
def open_listeners(listeners: Sequence[Listener]) -> Iterator[list[tuple[str, socket.socket]]]:
    """Open the sockets of all ``listeners``, each with its node; close them on leaving the context.

    Raises the soft limit of open files to the hard one, because each connection is one. The
    calling thread stays in its namespace. Raises KernelError if a port is in use or the kernel
    lacks the protocol, and LabError if a namespace is missing.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        yield in_thread(lambda: [(one.node, _open_listener(one, stack)) for one in listeners])


_IP_FREEBIND, _IPV6_FREEBIND = (socket.IPPROTO_IP, 15), (socket.IPPROTO_IPV6, 78)
"""<linux/in.h> and <linux/in6.h>; Python has no names for them."""


def _ask_for_destination(sock: socket.socket) -> None:
    """Request the destination address with each datagram, for ``UdpServer``."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def _open_listener(listener: Listener, stack: ExitStack) -> socket.socket:
    """Open the socket of ``listener``, until ``stack`` is closed.

    The calling thread is in the listener's namespace afterwards.
    """
    where = f"{listener.protocol} port {listener.port}"
    try:
        namespace = open_namespace(listener.netns)
        try:
            enter_for_good(namespace)
        finally:
            os.close(namespace)
        kind = socket.SOCK_DGRAM if listener.protocol is Protocol.UDP else socket.SOCK_STREAM
        family = socket.AF_INET6 if listener.ipv6 else socket.AF_INET
        sock = socket.socket(family, kind, listener.protocol.number)
    except OSError as error:
        missing = error.errno == errno.EPROTONOSUPPORT
        hint = f"modprobe {listener.protocol}" + ELSEWHERE if missing else ""
        raise _listen_error(listener, f"cannot listen on {where}", error, hint) from error
    except LvsctlError as error:
        raise type(error)(f"{listener.node}: {error.message}", hint=error.hint) from error
    stack.enter_context(sock)
    try:
        sock.setblocking(False)
        if listener.ipv6:
            # IPv4 has a listener of its own, so that answers show IPv4 addresses, not mapped ones.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if listener.protocol is Protocol.UDP:
            _ask_for_destination(sock)
            sock.bind(("", listener.port))
            return sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.protocol is Protocol.TCP:
            # Accepted sockets inherit it: answers are sent at once.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, SYN_ACK_RETRIES)
        if listener.address:
            # Also while the node does not hold it: `up` may restore the address later.
            sock.setsockopt(*(_IPV6_FREEBIND if listener.ipv6 else _IP_FREEBIND), 1)
        sock.bind((listener.address, listener.port))
        sock.listen(65535)  # limited to net.core.somaxconn
    except OSError as error:
        hint = ""
        if error.errno == errno.EADDRINUSE:
            hint = f"another process on {listener.node}, such as its `run:`, listens there"
        raise _listen_error(listener, f"cannot listen on {where}", error, hint) from error
    return sock


def _listen_error(listener: Listener, message: str, error: OSError, hint: str) -> KernelError:
    return KernelError(
        f"{listener.node}: {message}: {error.strerror}",
        node=listener.node,
        command=shlex.join(["respond", listener.netns, listener.node, str(listener.port)]),
        errno=error.errno or 0,
        hint=hint,
    )


SYN_ACK_RETRIES = 1
"""How often a SYN+ACK is sent again where no SYN follows (tcp(7), TCP_SYNCNT).

So a handshake that a fault broke is over after three seconds. By the kernel's default
(tcp_synack_retries) the real server would go on for a minute, and so teach its MAC address to
neighbours while the next fault keeps them from asking for it.
"""

IDLE_SECONDS = 900.0
"""How long a connection may be idle: as long as IPVS keeps an established one."""

REQUEST_SECONDS = 30.0
"""How long a request's header may take, and how long a body or a reply may stall."""

PAUSE_SECONDS = 1.0
"""Maximum delay before accepting again after running out of descriptors."""

ACCEPT_BATCH = 256
"""Connections accepted from one listener before other sockets are served."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def responder_of(lab: Lab) -> Respond:
    """Return what serves the lab's real servers, once it has a process of its own."""

    def respond(ports: tuple[ResponderPort, ...], ready: Ready) -> None:
        wanted = [listener for port in ports for listener in _listeners(lab, port)]
        with open_listeners(wanted) as sockets:
            ready(None)  # the kernel queues connections until they are accepted
            give_up_root()  # before the first byte is read
            addresses = {node.name: node.addresses for node in lab.nodes}
            serve(sockets, addresses, paths.of(lab.name).stopped)

    return respond


def _listeners(lab: Lab, port: ResponderPort) -> Iterator[Listener]:
    general = Listener(port.node, port.netns, port.protocol, port.port)
    if port.addresses:
        for address in port.addresses:
            yield general._replace(ipv6=address.version == 6, address=str(address))
    else:
        yield general
        if lab.ipv6:
            yield general._replace(ipv6=True)


STOP_SECONDS = 5.0
"""How long the responder may take to stop serving a node, on a slow machine."""


def set_stopped(lab: Lab, nodes: Collection[str]) -> None:
    """Let the running responder serve all real servers but ``nodes``, and wait until it does.

    Connections to these are closed, and new ones refused, as if their server process had ended;
    those to others are not disturbed. Raises LabError if the responder does not do so.
    """
    pid = processes.daemons(lab.name).get(processes.RESPONDER)
    if pid is None:
        raise LabError(f"the responder of lab {lab.name} does not run",
                       hint=f"lvsctl up {lab.name} starts it")  # fmt: skip
    with paths.wrap_os_errors(f"stop servers of lab {lab.name}"):
        file = paths.of(lab.name).stopped
        before = file.read_text(encoding="utf-8").split("\n") if file.exists() else []
        file.write_text("\n".join(nodes), encoding="utf-8")
        file.chmod(0o644)
    os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + STOP_SECONDS
    for node in {*before, *nodes} - {""}:
        while _listens(lab, node) == (node in nodes):
            if time.monotonic() > deadline:
                raise LabError(f"the responder did not stop or start serving for {node}")
            select.select([], [], [], _POLL_SECONDS)  # the kernel reports no such event


_POLL_SECONDS = 0.005


def _listens(lab: Lab, node: str) -> bool:
    """Whether any socket of a real server listens on a port of its services."""
    ports = {
        (service.endpoint.protocol, server.answers_at(endpoint))
        for service in lab.services
        for endpoint in service.endpoints
        for server in service.real_servers
        if server.node == node
    }

    def look() -> bool:
        with netlink_sockets.open_socket(netlink_sockets.SOCK_DIAG) as sock:
            return any((one.protocol, one.port) in ports for one in listeners.open_sockets(sock))

    return run_inside(lab.netns(node), look)


def serve(
    sockets: Sequence[tuple[str, socket.socket]],
    addresses: Mapping[str, Sequence[IPAddress]],
    stopped: Path | None = None,
) -> None:
    """Serve the nodes' listening ``sockets`` until SIGTERM, in the main thread of a process.

    ``addresses`` are the nodes' own, by node. On SIGUSR1 it stops serving the nodes in the file
    ``stopped``, a line each, and serves all others.
    """
    with ExitStack() as stack:
        loop = stack.enter_context(Loop())
        builders = {node: ResponseBuilder(node, addresses.get(node, ())) for node, _ in sockets}
        for node, sock in sockets:
            loop.add(sock, builders[node])
        wake, signalled = socket.socketpair()
        stack.enter_context(wake).setblocking(False)
        stack.enter_context(signalled).setblocking(False)
        loop.stop_on(wake)
        # epoll resumes after a signal (PEP 475), but the byte in ``signalled`` ends its wait.
        before = signal.signal(signal.SIGTERM, lambda _number, _frame: loop.stop())
        stack.callback(signal.signal, signal.SIGTERM, before)
        if stopped is not None:
            former = signal.signal(signal.SIGUSR1, lambda _number, _frame: loop.read_again(stopped))
            stack.callback(signal.signal, signal.SIGUSR1, former)
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(signalled.fileno()))
        loop.run()


class _Handler(Interface):
    def ready(self, events: int, /) -> None:
        """Make progress without blocking."""


class Loop:
    """The event loop: sockets with their handlers, and the connections' deadlines.

    All entries of a deadline queue have the same timeout, so the first is always due next.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, _Handler] = {}
        self._idle: OrderedDict[Connection, float] = OrderedDict()
        self._busy: OrderedDict[Connection, float] = OrderedDict()
        self._late: list[tuple[float, int, Connection]] = []
        """Connections that are answered later, as a heap: when, and the order of their requests."""
        self._requested = 0
        self._stopped: Path | None = None
        self._paused: set[TcpListener] = set()
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

    def add(self, sock: socket.socket, builder: ResponseBuilder) -> None:
        """Serve ``sock``, which the caller keeps, with replies of ``builder``."""
        stream = sock.type == socket.SOCK_STREAM
        self._handlers[sock.fileno()] = (
            TcpListener(self, sock, builder) if stream else UdpServer(sock, builder)
        )
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def stop_on(self, wake: socket.socket) -> None:
        """Wake up for a byte on ``wake``, so that a signal is handled at once."""
        self._handlers[wake.fileno()] = SignalSocket(wake)
        self._epoll.register(wake.fileno(), select.EPOLLIN)

    def stop(self) -> None:
        """Make ``run`` return after the current event."""
        self._running = False

    def read_again(self, stopped: Path) -> None:
        """Serve all nodes but those in a file, after the current event."""
        self._stopped = stopped

    def run(self) -> None:
        """Serve until ``stop``."""
        while self._running:
            if self._stopped is not None:
                self._serve_others(self._stopped)
            events = self._epoll.poll(self._timeout(), 512)
            self._now = time.monotonic()
            for fd, happened in events:
                # It may have been closed earlier in this batch. If its number was reused, the new
                # connection finds nothing to read and waits.
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler.ready(happened)
            self._expire()

    def _serve_others(self, file: Path) -> None:
        self._stopped = None
        nodes = file.read_text(encoding="utf-8").split("\n")
        for fd, handler in list(self._handlers.items()):
            if isinstance(handler, Connection):
                if handler.node in nodes:
                    handler.close()
            elif isinstance(handler, TcpListener | UdpServer):
                if handler.serving and handler.node in nodes:
                    if handler in self._paused:
                        self._paused.discard(handler)
                    else:
                        self._epoll.unregister(fd)
                    handler.stop()
                elif not handler.serving and handler.node not in nodes:
                    handler.start()
                    self._epoll.register(fd, select.EPOLLIN)

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

    def later(self, connection: Connection, seconds: float) -> None:
        self._requested += 1
        heapq.heappush(self._late, (self._now + seconds, self._requested, connection))

    def forget(self, connection: Connection) -> None:
        # Closing a descriptor removes it from epoll (epoll(7)).
        if self._handlers.pop(connection.sock.fileno(), None) is not None:
            self._idle.pop(connection, None)
            self._busy.pop(connection, None)
        if self._paused:
            self._resume_at = self._now

    def pause(self, listener: TcpListener) -> None:
        """Stop accepting until a connection ends or some time has passed.

        Otherwise the loop would wake up immediately again and again.
        """
        self._epoll.unregister(listener.sock.fileno())
        self._paused.add(listener)
        self._resume_at = self._now + PAUSE_SECONDS

    def _timeout(self) -> float | None:
        """Seconds until the first deadline; None if there is none."""
        due = [next(iter(queue.values())) for queue in (self._idle, self._busy) if queue]
        if self._paused:
            due.append(self._resume_at)
        if self._late:
            due.append(self._late[0][0])
        return max(0.0, min(due) - self._now) if due else None

    def _expire(self) -> None:
        for queue in (self._idle, self._busy):
            while queue:
                connection, deadline = next(iter(queue.items()))
                if deadline > self._now:
                    break
                connection.expire()
        while self._late and self._late[0][0] <= self._now:
            connection = heapq.heappop(self._late)[2]
            if connection.sock.fileno() >= 0:
                connection.ready()
        if self._paused and self._resume_at <= self._now:
            for listener in self._paused:
                self._epoll.register(listener.sock.fileno(), select.EPOLLIN)
            self._paused.clear()


class TcpListener:
    """A listening TCP socket."""

    def __init__(self, loop: Loop, sock: socket.socket, builder: ResponseBuilder) -> None:
        self.sock = sock
        self._kind = int(sock.family), int(sock.type), sock.proto
        # socket.accept without its conversions to enums, which take longer than accept(2).
        self._accept: Callable[[], tuple[int, tuple[object, ...]]] = getattr(sock, "_accept")  # noqa: B009 (it is in no stub)
        self._loop = loop
        self._builder = builder
        self.serving = True

    @property
    def node(self) -> str:
        """The real server."""
        return self._builder.node

    def stop(self) -> None:
        """Refuse connections; the port stays ours."""
        if self.sock.proto == Protocol.SCTP.number:
            self.sock.listen(0)  # which ends listening (sctp_inet_listen)
        else:
            self.sock.shutdown(socket.SHUT_RD)  # the same (inet_shutdown)
        self.serving = False

    def start(self) -> None:
        """Accept connections again."""
        self.sock.listen(65535)
        self.serving = True

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
                continue  # the client has disconnected; accept(2) returns its pending error
            sock = socket.SocketType(*self._kind, fd)
            Connection(self._loop, sock, self._builder, format_endpoint(peer)).ready()


class SignalSocket:
    """The socket that Python writes to on a signal."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def ready(self, _events: int = 0) -> None:
        os.read(self._sock.fileno(), 4096)
