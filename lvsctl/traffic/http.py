"""HTTP/1.1 for the responder: parse requests, build replies (RFC 9110, RFC 9112). No I/O.

The requests do not depend on how the bytes were split. Memory is bounded: ``HEAD_LIMIT`` bytes of
header; bodies are not kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from lvsctl import __version__
from lvsctl.model import dns, sip
from lvsctl.model.addresses import IPAddress

HEAD_LIMIT = 16 * 1024
"""Bytes of request line and headers that are read before the request is rejected (431)."""

LINE_LIMIT = 4096
"""Bytes of a chunk's size line, or of a trailer, beyond which the request is malformed."""

HASHED_PATH = "/echo"
"""Requests to this path have their body's SHA-256 taken."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
# A line may end in a bare LF (RFC 9112, section 2.2), as typed into nc.
_HEAD_END = re.compile(rb"\n\r?\n")
_METHOD_BEGUN = re.compile(_TOKEN + rb"{0,32}(?: |\Z)")
_REQUEST_LINE = re.compile(
    rb"(" + _TOKEN + rb"{1,32}) ([\x21-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])\Z"
)
# Two patterns without alternatives, so that matching takes linear time.
_FIELD_NAME = re.compile(rb"(" + _TOKEN + rb"+):")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\Z")
_AUTHORITY = re.compile(r"\Ahttps?://[^/?]*", re.IGNORECASE)


class BadRequest(Exception):
    """An invalid request; ``status`` is the HTTP status of its reply."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Head(NamedTuple):
    """A request line and the header fields that matter here.

    ``length`` is the length of the body in bytes; None if it is chunked.
    """

    method: str
    path: str
    http10: bool
    keep_alive: bool
    wants_json: bool
    length: int | None
    expects_continue: bool


class Request(NamedTuple):
    """A complete request with ``received`` bytes of body; ``sha256`` is '' unless requested."""

    head: Head
    received: int = 0
    sha256: str = ""


class Body:
    """Parses a body of ``length`` bytes (None: chunked), and calls ``take`` with its content."""

    def __init__(self, length: int | None, take: Callable[[bytes], object]) -> None:
        self._take = take
        self._left = length or 0
        self._chunked = length is None
        self._awaits = "size"
        self._trailers = 0

    def feed(self, buffer: bytearray) -> bool:
        """Remove the body from the front of ``buffer``; return whether it is complete.

        Raises BadRequest where the chunks make no sense.
        """
        while True:
            if self._left:
                part = bytes(buffer[: self._left])
                del buffer[: len(part)]
                self._take(part)
                self._left -= len(part)
                if self._left:
                    return False
            if not self._chunked:
                return True
            end = buffer.find(b"\n", 0, LINE_LIMIT)
            if end < 0:
                if len(buffer) >= LINE_LIMIT:
                    raise BadRequest(400, "line too long in the chunked body")
                return False
            line = bytes(buffer[:end]).removesuffix(b"\r")
            del buffer[: end + 1]
            if self._ends_with(line):
                return True

    def _ends_with(self, line: bytes) -> bool:
        """Parse a line between the chunks; return whether it is the last one."""
        if self._awaits == "trailer":
            self._trailers += len(line)
            if self._trailers > HEAD_LIMIT:
                raise BadRequest(431, "trailers too large")
            return not line
        if self._awaits == "end of chunk":
            if line:
                raise BadRequest(400, "chunk longer than its size")
            self._awaits = "size"
            return False
        match = _CHUNK_SIZE.match(line)
        if not match:
            raise BadRequest(400, "bad chunk size")
        self._left = int(match[1], 16)
        self._awaits = "end of chunk" if self._left else "trailer"
        return False


class RequestReader:
    """Parses requests incrementally."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._head: Head | None = None
        self._body = Body(0, self._count_part)
        self._hash = hashlib.sha256()
        self._received = 0
        self._continued = False

    def feed(self, data: bytes) -> None:
        """Add bytes from the client."""
        self._buffer += data

    @property
    def begun(self) -> bool:
        """Whether a part of a request has been received."""
        return bool(self._buffer or self._head)

    @property
    def in_body(self) -> bool:
        """Whether the header is complete and the body is not."""
        return self._head is not None

    def owes_continue(self) -> bool:
        """Whether the client waits for a ``100 Continue`` before its body; True once."""
        if self._head is None or not self._head.expects_continue or self._continued:
            return False
        self._continued = True
        return not self._received

    def next(self) -> Request | None:
        """Return the next complete request; None if more bytes are needed.

        Raises BadRequest; the connection's bytes make no sense from there on.
        """
        if self._head is None:
            self._head = self._next_head()
            if self._head is None:
                return None
            self._received, self._continued, self._hash = 0, False, hashlib.sha256()
            hashed = self._head.path == HASHED_PATH
            self._body = Body(self._head.length, self._hash_part if hashed else self._count_part)
        if not self._body.feed(self._buffer):
            return None
        head, self._head = self._head, None
        digest = self._hash.hexdigest() if head.path == HASHED_PATH else ""
        return Request(head, self._received, digest)

    def _next_head(self) -> Head | None:
        buffer = self._buffer
        if buffer.startswith((b"\r", b"\n")):
            # Some clients send an extra CRLF after a body (RFC 9112, section 2.2).
            buffer[:] = buffer.lstrip(b"\r\n")
        end = _HEAD_END.search(buffer, max(0, self._searched - 2), HEAD_LIMIT)
        if end is None:
            self._searched = len(buffer)
            # TLS and other protocols may never send a line end: reject them at once.
            if not _METHOD_BEGUN.match(buffer):
                raise BadRequest(400, "not an HTTP request")
            if len(buffer) >= HEAD_LIMIT:
                raise BadRequest(431, f"request line and headers exceed {HEAD_LIMIT} bytes")
            return None
        head = bytes(buffer[: end.start()])
        del buffer[: end.end()]
        self._searched = 0
        return head_of(head)

    def _hash_part(self, part: bytes) -> None:
        self._hash.update(part)
        self._received += len(part)

    def _count_part(self, part: bytes) -> None:
        self._received += len(part)


def head_of(text: bytes) -> Head:
    """Parse a header (without the empty line). Raises BadRequest."""
    lines = [line.removesuffix(b"\r") for line in text.split(b"\n")]
    start = _REQUEST_LINE.match(lines[0])
    if not start:
        raise BadRequest(400, "bad request line")
    method, target, major, minor = start.groups()
    if major != b"1":
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    http10 = minor == b"0"
    fields = parse_fields(lines[1:])
    if b"host" not in fields and not http10:
        raise BadRequest(400, "no Host header")
    length = _length_of(fields)
    options = {word.strip() for word in fields.get(b"connection", b"").lower().split(b",")}
    path = _AUTHORITY.sub("", target.decode("utf-8", "replace"), count=1) or "/"
    return Head(
        method=method.decode("ascii"),
        path=path,
        http10=http10,
        keep_alive=b"close" not in options and (not http10 or b"keep-alive" in options),
        wants_json=b"application/json" in fields.get(b"accept", b"").lower()
        or path.partition("?")[0].endswith(".json"),
        length=length,
        expects_continue=not http10 and fields.get(b"expect", b"").lower() == b"100-continue",
    )


def parse_fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """Parse header fields: lower-case name → value; repeated ones joined. Raises BadRequest."""
    fields: dict[bytes, bytes] = {}
    for line in lines:
        match = _FIELD_NAME.match(line)
        if not match or _CONTROL.search(line):
            raise BadRequest(400, "bad header line")
        name, value = match[1].lower(), line[match.end() :].strip(b" \t")
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def _length_of(fields: dict[bytes, bytes]) -> int | None:
    """Return the body's length; None if it is chunked (RFC 9112, section 6)."""
    coding = fields.get(b"transfer-encoding")
    announced = fields.get(b"content-length")
    if coding is not None:
        if announced is not None:
            raise BadRequest(400, "both Content-Length and Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise BadRequest(501, "no transfer coding but chunked is known here")
        return None
    if announced is None:
        return 0
    lengths = {value.strip() for value in announced.split(b",")}
    if len(lengths) != 1 or not re.fullmatch(rb"[0-9]{1,18}", announced.split(b",")[0].strip()):
        raise BadRequest(400, "bad Content-Length")
    return int(lengths.pop())


@lru_cache(maxsize=256)
def parse_single_request(data: bytes) -> Request | None:
    """Parse ``data`` that is exactly one request; None otherwise.

    Clients say the same thing again and again, so that this is a look-up: the path
    of nearly every request. Ask only for short ``data``: the cache keeps it.
    """
    reader = RequestReader()
    reader.feed(data)
    try:
        request = reader.next()
    except BadRequest:
        return None
    return None if reader.begun else request


BYTES_LIMIT = 64 * 1024 * 1024
"""The longest body that ``/bytes/N`` gives, in bytes."""

METHODS = ("GET", "HEAD", "POST", "PUT")
TEXT, JSON, BINARY = "text/plain; charset=utf-8", "application/json", "application/octet-stream"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

BLOCK = b"".join(b"%015x\n" % offset for offset in range(0, 64 * 1024, 16))
"""The repeated body of ``/bytes/N``: each line of 16 bytes is its own offset in here."""

DELAY_LIMIT = 60.0
"""The longest delay of ``/after/SECONDS/…``."""

_AFTER_PATH = re.compile(r"/after/([0-9]{1,3}(?:\.[0-9]{1,3})?)(?=/|\Z)")


def delay_of(path: str) -> float:
    """Return after how many seconds ``/after/SECONDS`` is answered; 0: at once."""
    match = _AFTER_PATH.match(path)
    return min(float(match[1]), DELAY_LIMIT) if match else 0.0


_BYTES_PATH = re.compile(r"/bytes/([0-9]{1,12})(?:\?.*)?\Z")


def pattern(offset: int, length: int) -> bytes:
    """Return ``length`` bytes of the body of ``/bytes/N``, from ``offset`` on."""
    start = offset % len(BLOCK)
    return (BLOCK * (1 + (start + length) // len(BLOCK)))[start : start + length]


@lru_cache(maxsize=1)
def _date(now: int) -> bytes:
    # Not strftime, which uses the locale: HTTP's names of days and months are English.
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(now)
    days, months = "MonTueWedThuFriSatSun", "JanFebMarAprMayJunJulAugSepOctNovDec"
    return (
        f"{days[3 * weekday : 3 * weekday + 3]}, {day:02} {months[3 * month - 3 : 3 * month]} "
        f"{year} {hour:02}:{minute:02}:{second:02} GMT"
    ).encode()


class ResponseBuilder:
    """Builds the replies of the real server ``node``.

    ``local`` and ``peer`` are the endpoints of a connection as ``address:port``. ``addresses``
    are the node's own, which DNS queries are answered with.
    """

    def __init__(self, node: str, addresses: Sequence[IPAddress] = ()) -> None:
        self.node = node
        self._addresses = addresses
        self._common = f"\r\nServer: lvsctl/{__version__}\r\nX-Real-Server: {node}\r\nDate: "
        self._text_start = self._start(200, TEXT)

    def line(self, local: str, peer: str) -> bytes:
        """Return the reply as text."""
        return f"{self.node} answered on {local}, request from {peer}\n".encode()

    def datagram(self, data: bytes, local: str, peer: str) -> bytes:
        """Return the reply to a datagram, on any port: of DNS or SIP where it is such a request."""
        query = dns.parse_query(data)
        line = self.line(local, peer)
        if response := sip.encode_response(data, line, self.node):
            return response
        if query is None:
            return line
        return dns.encode_response(query, self._addresses, line.decode().rstrip())

    def answer(self, request: Request, local: str, peer: str) -> tuple[bytes, int]:
        """Return the reply, and how many bytes of ``pattern`` follow it."""
        head = request.head
        if after := _AFTER_PATH.match(head.path):  # what follows is answered late
            head = head._replace(path=head.path[after.end() :] or "/")
        status, kind, body, following = 200, TEXT, self.line(local, peer), 0
        more = b""
        if query := head.path.partition("?")[2]:  # a large request gets a large reply
            body += f"{query}\n".encode()
        if not head.keep_alive:
            more = b"Connection: close\r\n"
        elif head.http10:
            more = b"Connection: keep-alive\r\n"
        if head.method not in METHODS:
            status, body = 405, f"405: {head.method} is not known here\n".encode()
            more += b"Allow: " + ", ".join(METHODS).encode() + b"\r\n"
        elif head.path == HASHED_PATH and head.method in {"POST", "PUT"}:
            said = {"node": self.node, "length": request.received, "sha256": request.sha256}
            kind, body = JSON, _json(said)
        elif head.path.startswith("/bytes/"):
            match = _BYTES_PATH.match(head.path)
            if match and int(match[1]) <= BYTES_LIMIT:
                kind, body, following = BINARY, b"", int(match[1])
            else:
                status = 400
                body = f"400: /bytes/N takes a number from 0 to {BYTES_LIMIT}\n".encode()
        elif head.wants_json:
            said = {"node": self.node, "local": local, "peer": peer}
            kind, body = JSON, _json(said | {"method": head.method, "path": head.path})
        start = self._start(status, kind) if status != 200 or kind != TEXT else self._text_start
        answer = start % (_date(int(time.time())), len(body) + following, more)
        return (answer, 0) if head.method == "HEAD" else (answer + body, following)

    def refusal(self, bad: BadRequest) -> bytes:
        """Return the reply to an invalid request; the connection closes after it."""
        body = f"{bad.status}: {bad.why}\n".encode()
        start = self._start(bad.status, TEXT)
        return start % (_date(int(time.time())), len(body), b"Connection: close\r\n") + body

    def _start(self, status: int, kind: str) -> bytes:
        """Return a header with placeholders for the date, the length and further fields."""
        phrase = HTTPStatus(status).phrase
        return (
            f"HTTP/1.1 {status} {phrase}{self._common.replace('%', '%%')}%b\r\n"
            f"Content-Type: {kind}\r\nContent-Length: %d\r\n%b\r\n"
        ).encode()


def _json(said: dict[str, object]) -> bytes:
    return json.dumps(said).encode() + b"\n"
