"""One non-blocking connection of the responder.

Input is read only while no output is pending, so that a client that does not read makes the
process buffer no more than one reply.
"""

from __future__ import annotations

import contextlib
import select
import socket
from typing import Protocol

from lvsctl.traffic.http import BadRequest, Request, RequestReader, parse_single_request
from lvsctl.traffic.responses import BLOCK, CONTINUE, ResponseBuilder

RECEIVE_BYTES = 64 * 1024
SINGLE_REQUEST_BYTES = 1024
"""Requests up to this size use the cache of ``parse_single_request``."""

OUTPUT_BYTES = 64 * 1024
"""Replies to pipelined requests are sent together up to about this size."""

TURN_BYTES = 1024 * 1024
"""Bytes streamed before other connections are served."""

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
        """Answer the whole requests that are here, as far as the output goes."""
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
        """Send what there is; then answer more, wait for more, or end."""
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
                # A head must be whole in time, however it drips in; a body may take long.
                self._host.expect(self, renew=self._reader.in_body)
            self._watch(select.EPOLLIN)
            return

    def _sent(self) -> bool:
        """Send as much as the kernel takes, within a turn; True once all is sent."""
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
        # Closing with input unread sends a RST, which can overtake the answer and destroy it
        # (RFC 9112, section 9.6): end our direction only, and throw away what still comes.
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
    """``address:port`` of a socket's address as Python gives it; IPv6 in brackets."""
    if len(name) == 2:
        return f"{name[0]}:{name[1]}"
    return f"[{str(name[0]).partition('%')[0]}]:{name[1]}"
