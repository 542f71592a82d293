"""HTTP/1.1 requests out of a byte stream (RFC 9110, RFC 9112): no I/O.

However the bytes are split, the same requests come out. What a client could make
the process keep is bounded: ``HEAD_LIMIT`` bytes of head; bodies pass through.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

HEAD_LIMIT = 16 * 1024
"""Bytes of request line and headers that are read before the request is refused (431)."""

LINE_LIMIT = 4096
"""Bytes of a chunk's size line, or of a trailer, beyond which the request is malformed."""

HASHED_PATH = "/echo"
"""Requests to this path have their body's SHA-256 taken."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
# A line may end in a bare LF (RFC 9112, section 2.2): people type requests into nc.
_HEAD_END = re.compile(rb"\n\r?\n")
_METHOD_BEGUN = re.compile(_TOKEN + rb"{0,32}(?: |\Z)")
_REQUEST_LINE = re.compile(
    rb"(" + _TOKEN + rb"{1,32}) ([\x21-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])\Z"
)
# Two patterns without a choice in them: a hostile line takes no longer than another.
_FIELD_NAME = re.compile(rb"(" + _TOKEN + rb"+):")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\Z")
_AUTHORITY = re.compile(r"\Ahttps?://[^/?]*", re.IGNORECASE)


class BadRequest(Exception):
    """The bytes are no request that can be answered; ``status`` is HTTP's for it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(frozen=True, slots=True)
class Head:
    """A request line and the header fields that matter here.

    ``length`` is the announced length of the body in bytes; None where it comes in chunks.
    """

    method: str
    path: str
    http10: bool
    keep_alive: bool
    wants_json: bool
    length: int | None
    expects_continue: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request: ``received`` bytes of body; ``sha256`` is '' where nobody asked."""

    head: Head
    received: int = 0
    sha256: str = ""


class Body:
    """A body of ``length`` bytes, or with None in chunks. ``take`` gets what is in it."""

    def __init__(self, length: int | None, take: Callable[[bytes], object]) -> None:
        self._take = take
        self._left = length or 0
        self._chunked = length is None
        self._awaits = "size"
        self._trailers = 0

    def feed(self, buffer: bytearray) -> bool:
        """Take what belongs to the body off the front of ``buffer``; True once it is whole.

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
        """Take in a line between the chunks; True for the last one."""
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
    """Requests out of the bytes that are fed to it, one after the other."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._head: Head | None = None
        self._body = Body(0, self._count_part)
        self._hash = hashlib.sha256()
        self._received = 0
        self._continued = False

    def feed(self, data: bytes) -> None:
        """More bytes from the client."""
        self._buffer += data

    @property
    def begun(self) -> bool:
        """Whether part of a request is here."""
        return bool(self._buffer or self._head)

    @property
    def in_body(self) -> bool:
        """Whether the head is whole and the body is not."""
        return self._head is not None

    def owes_continue(self) -> bool:
        """Whether the client waits for a ``100 Continue`` before its body; True once."""
        if self._head is None or not self._head.expects_continue or self._continued:
            return False
        self._continued = True
        return not self._received

    def next(self) -> Request | None:
        """The next whole request; None where more bytes are needed.

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
            # Some clients end a body with a CRLF too many (RFC 9112, section 2.2).
            buffer[:] = buffer.lstrip(b"\r\n")
        end = _HEAD_END.search(buffer, max(0, self._searched - 2), HEAD_LIMIT)
        if end is None:
            self._searched = len(buffer)
            # TLS and other protocols have no line end to wait for: say no at once.
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
    """The head written in ``text`` (without the empty line). Raises BadRequest."""
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
    """Header fields by lower-case name; repeated ones joined by commas. Raises BadRequest."""
    fields: dict[bytes, bytes] = {}
    for line in lines:
        match = _FIELD_NAME.match(line)
        if not match or _CONTROL.search(line):
            raise BadRequest(400, "bad header line")
        name, value = match[1].lower(), line[match.end() :].strip(b" \t")
        fields[name] = fields[name] + b", " + value if name in fields else value
    return fields


def _length_of(fields: dict[bytes, bytes]) -> int | None:
    """The body's length; None for chunks (RFC 9112, section 6)."""
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
    """The one request that ``data`` is from its first byte to its last; None otherwise.

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
