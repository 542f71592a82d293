"""Build the responder's replies: the real server's name and the connection's endpoints. No I/O."""

from __future__ import annotations

import json
import re
import time
from functools import lru_cache
from http import HTTPStatus

from lvsctl import __version__
from lvsctl.traffic.http import HASHED_PATH, BadRequest, Request

BYTES_LIMIT = 64 * 1024 * 1024
"""The longest body that ``/bytes/N`` gives, in bytes."""

METHODS = ("GET", "HEAD", "POST", "PUT")
TEXT, JSON, BINARY = "text/plain; charset=utf-8", "application/json", "application/octet-stream"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

BLOCK = b"".join(b"%015x\n" % offset for offset in range(0, 64 * 1024, 16))
"""The repeated body of ``/bytes/N``: each line of 16 bytes is its own offset in here."""

_BYTES_PATH = re.compile(r"/bytes/([0-9]{1,12})(?:\?.*)?\Z")


def pattern(offset: int, length: int) -> bytes:
    """``length`` bytes of the body of ``/bytes/N``, from ``offset`` on."""
    start = offset % len(BLOCK)
    return (BLOCK * (1 + (start + length) // len(BLOCK)))[start : start + length]


@lru_cache(maxsize=1)
def _date(now: int) -> bytes:
    # Not strftime: HTTP's names of days are English, whatever the locale says.
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(now)
    days, months = "MonTueWedThuFriSatSun", "JanFebMarAprMayJunJulAugSepOctNovDec"
    return (
        f"{days[3 * weekday : 3 * weekday + 3]}, {day:02} {months[3 * month - 3 : 3 * month]} "
        f"{year} {hour:02}:{minute:02}:{second:02} GMT"
    ).encode()


class ResponseBuilder:
    """Builds the replies of the real server ``node``.

    ``local`` and ``peer`` are the endpoints of a connection as ``address:port``.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self._common = f"\r\nServer: lvsctl/{__version__}\r\nX-Real-Server: {node}\r\nDate: "
        self._text_start = self._start(200, TEXT)

    def line(self, local: str, peer: str) -> bytes:
        """The reply as text; for UDP, the whole reply."""
        return f"{self.node} answered on {local}, request from {peer}\n".encode()

    def answer(self, request: Request, local: str, peer: str) -> tuple[bytes, int]:
        """The reply, and how many bytes of ``pattern`` follow it."""
        head = request.head
        status, kind, body, following = 200, TEXT, self.line(local, peer), 0
        more = b""
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
        """The reply to invalid input; the connection closes after it."""
        body = f"{bad.status}: {bad.why}\n".encode()
        start = self._start(bad.status, TEXT)
        return start % (_date(int(time.time())), len(body), b"Connection: close\r\n") + body

    def _start(self, status: int, kind: str) -> bytes:
        """A header with placeholders for the date, the length and further fields."""
        phrase = HTTPStatus(status).phrase
        return (
            f"HTTP/1.1 {status} {phrase}{self._common.replace('%', '%%')}%b\r\n"
            f"Content-Type: {kind}\r\nContent-Length: %d\r\n%b\r\n"
        ).encode()


def _json(said: dict[str, object]) -> bytes:
    return json.dumps(said).encode() + b"\n"
