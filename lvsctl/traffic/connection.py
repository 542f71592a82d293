"""The responder's non-blocking sockets: a TCP connection, and a UDP socket.

Input of a connection is read only while no output is pending, so that a client that does not read
makes the process buffer no more than one reply. Replies over UDP come from the address to which
the datagram was sent.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from typing import Protocol

from lvsctl import linux
from lvsctl.traffic.http import (
    BLOCK,
    CONTINUE,
    BadRequest,
    Request,
    RequestReader,
    ResponseBuilder,
    delay_of,
    parse_single_request,
)

RECEIVE_BYTES = 64 * 1024
SINGLE_REQUEST_BYTES = 1024
"""Requests up to this size use the cache of ``parse_single_request``."""

OUTPUT_BYTES = 64 * 1024
"""Replies to pipelined requests are sent together up to about this size."""

TURN_BYTES = 1024 * 1024
"""Bytes streamed before other connections are served."""

IP_PKTINFO = 8
"""<linux/in.h>; Python has no name for it before 3.14."""

_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_BLOCK = memoryview(BLOCK)


class ConnectionOwner(Protocol):
    """The interface of the event loop to a connection."""

    def watch(self, connection: Connection, events: int, *, known: bool) -> None:
        """Call ``connection.ready`` on one of the epoll ``events``."""

    def rest(self, connection: Connection) -> None:
        """Start the idle timeout: no request is pending."""

    def expect(self, connection: Connection, *, renew: bool) -> None:
        """Start the request timeout, or restart it if ``renew``."""

    def later(self, connection: Connection, seconds: float) -> None:
        """Call ``connection.ready`` after ``seconds``, unless it is closed by then."""

    def forget(self, connection: Connection) -> None:
        """Remove a connection that is about to be closed."""


class Connection:
    """The server's side of one connection. ``peer`` is the client as ``address:port``."""

    __slots__ = (
        "_builder",
        "_events",
        "_host",
        "_last",
        "_lingering",
        "_local",
        "_out",
        "_peer",
        "_reader",
        "_stream_at",
        "_stream_end",
        "sock",
    )

    def __init__(
        self, host: ConnectionOwner, sock: socket.SocketType, builder: ResponseBuilder, peer: str
    ) -> None:
        self.sock = sock
        self._host = host
        self._builder = builder
        self._peer = peer
        self._local = ""
        self._reader: RequestReader | None = None
        self._out = b""
        self._stream_at = 0
        self._stream_end = 0
        self._events = 0
        self._last = False
        """Close after the pending output."""
        self._lingering = False
        """All output is sent; further input is discarded."""

    @property
    def node(self) -> str:
        """The real server."""
        return self._builder.node

    def ready(self, _events: int = 0) -> None:
        """Read or send what is possible."""
        try:
            if self._out or self._stream_at < self._stream_end:
                self._pump()
            else:
                self._receive()
        except OSError:
            # Reset, timed out or unreachable: the client is gone.
            self.close()

    def expire(self) -> None:
        """Close after a timeout."""
        if self._reader is not None and not self._out and not self._lingering:
            with contextlib.suppress(OSError):
                self.sock.send(self._builder.refusal(BadRequest(408, "too slow")), _SEND_FLAGS)
        self.close()

    def close(self) -> None:
        """Close the socket. Bytes in flight still arrive (close(2))."""
        self._host.forget(self)
        self.sock.close()

    def _receive(self) -> None:
        try:
            data = self.sock.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if not self._events:
                self._host.rest(self)
            self._watch(select.EPOLLIN)
            return
        if not data:
            self.close()
        elif self._lingering:
            pass
        elif (
            self._reader is None
            and len(data) <= SINGLE_REQUEST_BYTES
            and (lone := parse_single_request(data))
        ):
            self._answer(lone)
            seconds = delay_of(lone.head.path)
            if seconds:
                self._watch(select.EPOLLHUP)  # nothing but the end of the connection
                self._host.later(self, seconds)
                return
            self._pump()
        else:
            if self._reader is None:
                self._reader = RequestReader()
            self._reader.feed(data)
            self._compose(self._reader)
            self._pump()

    def _answer(self, request: Request) -> None:
        if not self._local:
            name = self.sock.getsockname()
            self._local = format_endpoint(name)
        answer, following = self._builder.answer(request, self._local, self._peer)
        self._out = self._out + answer if self._out else answer
        if following:
            self._stream_at, self._stream_end = 0, following
        self._last = not request.head.keep_alive

    def _compose(self, reader: RequestReader) -> None:
        """Answer the complete requests received, until the output is full."""
        while len(self._out) < OUTPUT_BYTES and not self._last and not self._stream_end:
            try:
                request = reader.next()
            except BadRequest as bad:
                self._out += self._builder.refusal(bad)
                self._last = True
                return
            if request is None:
                if reader.owes_continue():
                    self._out += CONTINUE
                return
            self._answer(request)
        if not reader.begun:
            self._reader = None

    def _pump(self) -> None:
        """Send the pending output; then answer more requests, wait for input, or end."""
        while True:
            if not self._sent():
                self._host.expect(self, renew=True)
                self._watch(select.EPOLLOUT)
                return
            if self._last:
                self._finish()
                return
            if self._reader is not None:
                self._compose(self._reader)
                if self._out or self._stream_end:
                    continue
            if self._reader is None or not self._reader.begun:
                self._reader = None
                self._host.rest(self)
            else:
                # A header must be complete in time, even if it comes slowly; a body may take long.
                self._host.expect(self, renew=self._reader.in_body)
            self._watch(select.EPOLLIN)
            return

    def _sent(self) -> bool:
        """Send as much as the kernel accepts, within a turn; return whether all is sent."""
        try:
            while self._out:
                count = self.sock.send(self._out, _SEND_FLAGS)
                self._out = b"" if count == len(self._out) else self._out[count:]
            if self._stream_end:
                self._stream()
        except BlockingIOError:
            return False
        return not self._stream_end

    def _stream(self) -> None:
        turn_end = min(self._stream_end, self._stream_at + TURN_BYTES)
        while self._stream_at < turn_end:
            start = self._stream_at % len(BLOCK)
            part = _BLOCK[start : start + self._stream_end - self._stream_at]
            self._stream_at += self.sock.send(part, _SEND_FLAGS)
        if self._stream_at >= self._stream_end:
            self._stream_at = self._stream_end = 0

    def _finish(self) -> None:
        if self._reader is None:
            self.close()
            return
        # Closing with unread input sends a RST, which can overtake and discard the answer
        # (RFC 9112, section 9.6): shut down our direction only, and discard what still comes.
        self.sock.shutdown(socket.SHUT_WR)
        self._lingering = True
        self._reader = None
        self._host.expect(self, renew=True)
        self._watch(select.EPOLLIN)

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._host.watch(self, events, known=bool(self._events))
            self._events = events


def format_endpoint(name: tuple[object, ...]) -> str:
    """Format a socket's address as ``address:port``; IPv6 in brackets."""
    if len(name) == 2:
        return f"{name[0]}:{name[1]}"
    return f"[{str(name[0]).partition('%')[0]}]:{name[1]}"


BATCH = 64
"""Datagrams answered before other sockets are served."""

DATAGRAM = 512
"""Bytes of a datagram that are read: as long as a DNS query may be (RFC 1035, section 2.3.4)."""

_IN_PKTINFO = struct.Struct("=i4s4s")  # ifindex, spec_dst, addr (ip(7))
_IN6_PKTINFO = struct.Struct("=16si")  # addr, ifindex (ipv6(7))


class UdpServer:
    """A real server's UDP socket, from ``responder.open_listeners``."""

    def __init__(self, sock: socket.socket, builder: ResponseBuilder) -> None:
        self.sock = sock
        self._builder = builder
        self._port = sock.getsockname()[1]
        self.serving = True

    @property
    def node(self) -> str:
        """The real server."""
        return self._builder.node

    def stop(self) -> None:
        """Refuse datagrams, as if no socket had the port: one with a peer gets its peer's only."""
        self.sock.connect(("::1" if self.sock.family == socket.AF_INET6 else "127.0.0.1", 9))
        self.serving = False

    def start(self) -> None:
        """Receive datagrams of everyone again."""
        linux.disconnect(self.sock.fileno())
        self.serving = True

    def ready(self, _events: int = 0) -> None:
        """Answer the datagrams received. One whose answer the kernel rejects gets none."""
        for _ in range(BATCH):
            try:
                data, controls, _, peer = self.sock.recvmsg(DATAGRAM, 64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error for an earlier answer: each is reported once
            for level, kind, content in controls:
                address, control = _parse_destination(level, kind, content)
                if address:
                    local = (address, self._port, *peer[2:])
                    reply = self._builder.datagram(
                        data, format_endpoint(local), format_endpoint(peer)
                    )
                    # A full send buffer, no route, a firewall: UDP may lose an answer, and the
                    # client times out.
                    with contextlib.suppress(OSError):
                        self.sock.sendmsg([reply], [control], socket.MSG_DONTWAIT, peer)


def _parse_destination(level: int, kind: int, data: bytes) -> tuple[str, tuple[int, int, bytes]]:
    """Return a datagram's destination address, and the control message to answer from it.

    The routes choose the interface, except for link-local addresses, which need one.
    """
    if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
        _, _, address = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
        control = _IN_PKTINFO.pack(0, address, bytes(4))
        return socket.inet_ntop(socket.AF_INET, address), (level, kind, control)
    if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
        address, index = _IN6_PKTINFO.unpack(data[: _IN6_PKTINFO.size])
        local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
        control = _IN6_PKTINFO.pack(address, index if local else 0)
        return socket.inet_ntop(socket.AF_INET6, address), (level, kind, control)
    return "", (0, 0, b"")
