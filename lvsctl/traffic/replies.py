"""Parse replies on the client's side. No I/O."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from lvsctl.model import dns, sip
from lvsctl.model.addresses import Endpoint
from lvsctl.traffic.http import HEAD_LIMIT, BadRequest, Body, parse_fields

IDENTITY_LIMIT = 4096
"""Bytes of a body in which the real server's identity is searched."""

_HEAD_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\Z)")
_LINE = re.compile(rb"(\S+) answered on (\S+), request from (\S+)\n")


parse_address = lru_cache(maxsize=1024)(ip_address)
"""``ip_address`` with a cache: replies repeat a few addresses."""


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What a reply says of the real server: its name, and the connection's endpoints there."""

    node: str = ""
    local: Endpoint | None = None
    peer: Endpoint | None = None


def parse_identity(body: bytes) -> ServerIdentity:
    """Parse the responder's text or JSON; empty if ``body`` is another server's."""
    match = _LINE.match(body)
    if match:
        node, local, peer = match.groups()
        return ServerIdentity(
            node.decode("utf-8", "replace"),
            _parse_own_endpoint(local.decode("utf-8", "replace")),
            parse_endpoint(peer.decode("utf-8", "replace")),
        )
    if body.startswith(b"{"):
        try:
            told = json.loads(body)
            return ServerIdentity(
                str(told.get("node", "")),
                parse_endpoint(str(told.get("local", ""))),
                parse_endpoint(str(told.get("peer", ""))),
            )
        except (ValueError, RecursionError):
            pass
    return ServerIdentity()


def parse_datagram(data: bytes) -> ServerIdentity:
    """Parse a reply over UDP, which may be one of DNS or SIP; empty if it is another server's."""
    if (body := sip.answered_text(data)) is not None:
        return parse_identity(body)
    text = dns.answered_text(data)
    return parse_identity(data if text is None else f"{text}\n".encode())


def parse_endpoint(text: str) -> Endpoint | None:
    """Parse ``address:port``, IPv6 in brackets; None if ``text`` is something else."""
    host, _, port = text.rpartition(":")
    try:
        return Endpoint(parse_address(host.removeprefix("[").removesuffix("]")), int(port))
    except ValueError:
        return None


_parse_own_endpoint = lru_cache(maxsize=64)(parse_endpoint)
"""For the real server's endpoint, which is the same in every reply."""


@dataclass(frozen=True, slots=True)
class _Head:
    """A status line and the relevant fields. ``length`` is None for a chunked body."""

    status: int
    named: str
    length: int | None
    until_close: bool


@lru_cache(maxsize=256)
def _parse_head(text: bytes) -> _Head:
    """Parse a header; cached, because servers repeat the same one."""
    lines = [line.removesuffix(b"\r") for line in text.split(b"\n")]
    match = _STATUS_LINE.match(lines[0])
    if not match:
        raise BadRequest(0, "not an HTTP answer")
    status = int(match[1])
    fields = parse_fields(lines[1:])
    named = fields.get(b"x-real-server", b"").decode("utf-8", "replace")
    if status in {204, 304}:
        return _Head(status, named, 0, until_close=False)
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        return _Head(status, named, None, until_close=False)
    length = fields.get(b"content-length")
    if length is None:
        return _Head(status, named, 0, until_close=True)
    if not _LENGTH.match(length):
        raise BadRequest(0, "bad Content-Length")
    return _Head(status, named, int(length), until_close=False)


def parse_single_reply(data: bytes) -> tuple[int, ServerIdentity] | None:
    """Parse ``data`` that is exactly one reply: status and identity; None otherwise.

    The fast path of nearly every reply; ``ReplyReader`` parses the others.
    """
    end = data.find(b"\r\n\r\n", 0, HEAD_LIMIT)
    if end < 0:
        return None
    try:
        head = _parse_head(data[:end])
    except BadRequest:
        return None
    if head.status < 200 or head.until_close or head.length != len(data) - end - 4:
        return None
    return head.status, _named(head.named, data[end + 4 : end + 4 + IDENTITY_LIMIT])


def _named(name: str, body: bytes) -> ServerIdentity:
    """Parse ``body``; the header X-Real-Server overrides its name."""
    told = parse_identity(body)
    return ServerIdentity(name, told.local, told.peer) if name and name != told.node else told


class ReplyReader:
    """Parses one HTTP reply to a GET incrementally (RFC 9112)."""

    def __init__(self) -> None:
        self.status = 0
        """HTTP status; 0 until the header is complete."""
        self._buffer = bytearray()
        self._body: Body | None = None
        self._until_close = False
        self._named = ""
        self._said = bytearray()

    def feed(self, data: bytes) -> bool:
        """Add bytes; True once the reply is complete. Raises BadRequest if it is invalid."""
        self._buffer += data
        while self._body is None and not self._until_close:
            if not self._take_head():
                return False
        if self._body is not None:
            return self._body.feed(self._buffer)
        self._keep(bytes(self._buffer))
        self._buffer.clear()
        return False

    def end(self) -> bool:
        """End of input: whether the reply is complete."""
        return self._until_close

    @property
    def said(self) -> ServerIdentity:
        """The real server's identity, also from the header X-Real-Server."""
        return _named(self._named, bytes(self._said))

    def _take_head(self) -> bool:
        end = _HEAD_END.search(self._buffer, 0, HEAD_LIMIT)
        if end is None:
            if len(self._buffer) >= HEAD_LIMIT or not b"HTTP/1.".startswith(self._buffer[:7]):
                raise BadRequest(0, "not an HTTP answer")
            return False
        head = _parse_head(bytes(self._buffer[: end.start()]))
        del self._buffer[: end.end()]
        if head.status < 200:
            return True  # an interim reply: the final one follows
        self.status, self._named = head.status, head.named
        if head.until_close:
            self._until_close = True
        else:
            self._body = Body(head.length, self._keep)
        return True

    def _keep(self, part: bytes) -> None:
        if len(self._said) < IDENTITY_LIMIT:
            self._said += part[: IDENTITY_LIMIT - len(self._said)]
