"""What a client makes of the bytes that come back: no I/O."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from lvsctl.model.exchange import Endpoint
from lvsctl.traffic.http import HEAD_LIMIT, BadRequest, Body, fields_of

SAID_LIMIT = 4096
"""Bytes of a body in which the real server's own words are looked for."""

_HEAD_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\Z)")
_LINE = re.compile(rb"(\S+) answered on (\S+), request from (\S+)\n")


address_of = lru_cache(maxsize=1024)(ip_address)
"""``ip_address``, remembered: the same few addresses come back with every answer."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a real server tells: its name, and the two ends of the connection as it sees them."""

    node: str = ""
    local: Endpoint | None = None
    peer: Endpoint | None = None


def said_in(body: bytes) -> Said:
    """What ``body`` tells, in the responder's text or JSON; nothing where it is another's."""
    match = _LINE.match(body)
    if match:
        node, local, peer = match.groups()
        return Said(
            node.decode("utf-8", "replace"),
            _own_endpoint_of(local.decode("utf-8", "replace")),
            endpoint_of(peer.decode("utf-8", "replace")),
        )
    if body.startswith(b"{"):
        try:
            told = json.loads(body)
            return Said(
                str(told.get("node", "")),
                endpoint_of(str(told.get("local", ""))),
                endpoint_of(str(told.get("peer", ""))),
            )
        except (ValueError, RecursionError):
            pass
    return Said()


def endpoint_of(text: str) -> Endpoint | None:
    """``address:port``, with brackets around IPv6; None where ``text`` is something else."""
    host, _, port = text.rpartition(":")
    try:
        return Endpoint(address_of(host.removeprefix("[").removesuffix("]")), int(port))
    except ValueError:
        return None


_own_endpoint_of = lru_cache(maxsize=64)(endpoint_of)
"""Of the real server: the same with every answer, unlike the client's port."""


@dataclass(frozen=True, slots=True)
class _Head:
    """A status line and what matters of the fields. ``length`` None: the body comes in chunks."""

    status: int
    named: str
    length: int | None
    until_close: bool


@lru_cache(maxsize=256)
def _head_of(text: bytes) -> _Head:
    """The head written in ``text``: servers repeat themselves, so that it is mostly a look-up."""
    lines = [line.removesuffix(b"\r") for line in text.split(b"\n")]
    match = _STATUS_LINE.match(lines[0])
    if not match:
        raise BadRequest(0, "not an HTTP answer")
    status = int(match[1])
    fields = fields_of(lines[1:])
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


def lone_reply(data: bytes) -> tuple[int, Said] | None:
    """Status and words of the one answer that ``data`` is from first byte to last; None otherwise.

    The path of nearly every answer; whatever else there is, ``ReplyReader`` reads.
    """
    end = data.find(b"\r\n\r\n", 0, HEAD_LIMIT)
    if end < 0:
        return None
    try:
        head = _head_of(data[:end])
    except BadRequest:
        return None
    if head.status < 200 or head.until_close or head.length != len(data) - end - 4:
        return None
    return head.status, _named(head.named, data[end + 4 : end + 4 + SAID_LIMIT])


def _named(name: str, body: bytes) -> Said:
    """What ``body`` tells, with the name from the header X-Real-Server where there is one."""
    told = said_in(body)
    return Said(name, told.local, told.peer) if name and name != told.node else told


class ReplyReader:
    """One HTTP answer out of the bytes that are fed to it (RFC 9112), to a GET."""

    def __init__(self) -> None:
        self.status = 0
        """HTTP's; 0 until the head is here."""
        self._buffer = bytearray()
        self._body: Body | None = None
        self._until_close = False
        self._named = ""
        self._said = bytearray()

    def feed(self, data: bytes) -> bool:
        """More bytes; True once the answer is whole. Raises BadRequest where it is no answer."""
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
        """Nothing more comes: whether the answer is whole."""
        return self._until_close

    @property
    def said(self) -> Said:
        """What the real server tells; its name also from the header X-Real-Server."""
        return _named(self._named, bytes(self._said))

    def _take_head(self) -> bool:
        end = _HEAD_END.search(self._buffer, 0, HEAD_LIMIT)
        if end is None:
            if len(self._buffer) >= HEAD_LIMIT or not b"HTTP/1.".startswith(self._buffer[:7]):
                raise BadRequest(0, "not an HTTP answer")
            return False
        head = _head_of(bytes(self._buffer[: end.start()]))
        del self._buffer[: end.end()]
        if head.status < 200:
            return True  # an interim answer: the real one follows
        self.status, self._named = head.status, head.named
        if head.until_close:
            self._until_close = True
        else:
            self._body = Body(head.length, self._keep)
        return True

    def _keep(self, part: bytes) -> None:
        if len(self._said) < SAID_LIMIT:
            self._said += part[: SAID_LIMIT - len(self._said)]
