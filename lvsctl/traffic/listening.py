"""The sockets on which the responder answers, in the namespaces of the real servers.

Apart from the responder itself, whose modules take as long to import as a small lab takes
to build: once the sockets are there, the kernel takes what clients send. So `up` need not
wait for them; what fails in there afterwards stands in the responder's log, and `ls` shows it.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from lvsctl.errors import KernelError, LvsctlError
from lvsctl.kernel.netns import enter_for_good, in_thread, open_namespace
from lvsctl.model.service import Protocol

IP_PKTINFO = 8
"""<linux/in.h>; Python has no name for it before 3.14."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A port of a real server: every IPv4 address of ``node``, or with ``ipv6`` every IPv6 one.

    ``netns`` is the namespace's name, as `ip netns` lists it.
    """

    node: str
    netns: str
    protocol: Protocol
    port: int
    ipv6: bool = False


@contextmanager
def listening(listeners: Sequence[Listener]) -> Iterator[list[tuple[str, socket.socket]]]:
    """The sockets of all ``listeners``, each with its node; from now on clients may come.

    Raises the soft limit of open files to the hard one: each connection is one. The calling
    thread stays in its namespace. Raises KernelError where a port is in use or the kernel
    lacks the protocol; LabError where a namespace is missing.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        yield in_thread(lambda: [(one.node, _open(one, stack)) for one in listeners])


def _ask_for_destination(sock: socket.socket) -> None:
    """Have the kernel tell with each datagram where it was sent to: ``datagrams`` reads it."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def _open(listener: Listener, stack: ExitStack) -> socket.socket:
    """The listening socket of ``listener``, open until ``stack`` is closed.

    The calling thread is in its namespace afterwards.
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
        hint = "the kernel has no such protocol" if error.errno == errno.EPROTONOSUPPORT else ""
        raise _refused(listener, f"cannot listen on {where}", error, hint) from error
    except LvsctlError as error:
        raise type(error)(f"{listener.node}: {error.message}", hint=error.hint) from error
    stack.enter_context(sock)
    try:
        sock.setblocking(False)
        if listener.ipv6:
            # IPv4 has a listener of its own: the answers then show addresses as clients know them.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if listener.protocol is Protocol.UDP:
            _ask_for_destination(sock)
            sock.bind(("", listener.port))
            return sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.protocol is Protocol.TCP:
            # Accepted sockets inherit it: answers leave at once, at no cost per connection.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(("", listener.port))
        sock.listen(65535)  # the kernel takes net.core.somaxconn where that is less
    except OSError as error:
        hint = ""
        if error.errno == errno.EADDRINUSE:
            hint = f"`ip netns exec {listener.netns} ss -ltunp` shows who listens there"
        raise _refused(listener, f"cannot listen on {where}", error, hint) from error
    return sock


def _refused(listener: Listener, message: str, error: OSError, hint: str) -> KernelError:
    import shlex

    return KernelError(
        f"{listener.node}: {message}: {error.strerror}",
        node=listener.node,
        command=shlex.join(["respond", listener.netns, listener.node, str(listener.port)]),
        errno=error.errno or 0,
        hint=hint,
    )
