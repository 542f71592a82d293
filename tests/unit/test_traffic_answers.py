"""What a real server says."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest

from lvsctl.traffic import http
from lvsctl.traffic.http import (
    BLOCK,
    BYTES_LIMIT,
    Request,
    ResponseBuilder,
    parse_single_request,
    pattern,
)

LOCAL, PEER = "10.10.0.100:80", "10.10.0.10:45678"


def asked(line: str, *fields: str) -> Request:
    head = "\r\n".join([f"{line} HTTP/1.1", "Host: vip", *fields])
    request = parse_single_request(f"{head}\r\n\r\n".encode())
    assert request
    return request


def answer(line: str, *fields: str) -> tuple[str, str, int]:
    """Head and body of the answer, and the bytes that follow."""
    data, following = ResponseBuilder("rs1").answer(asked(line, *fields), LOCAL, PEER)
    head, _, body = data.decode().partition("\r\n\r\n")
    return head, body, following


def test_text() -> None:
    head, body, _ = answer("GET /any/path")
    assert body == "rs1 answered on 10.10.0.100:80, request from 10.10.0.10:45678\n"
    assert head.startswith("HTTP/1.1 200 OK\r\nServer: lvsctl/")
    assert "\r\nX-Real-Server: rs1\r\n" in head
    assert f"\r\nContent-Length: {len(body)}" in head
    assert "Connection" not in head


def test_a_large_request_gets_a_large_reply() -> None:
    _, body, _ = answer(f"GET /?{'x' * 4000}")
    assert body.startswith("rs1 answered on 10.10.0.100:80, request from 10.10.0.10:45678\nxxx")
    assert len(body) > 4000


@pytest.mark.parametrize(
    ("path", "fields"), [("/x.json?y", ()), ("/", ("Accept: application/json",))]
)
def test_json(path: str, fields: tuple[str, ...]) -> None:
    _, body, _ = answer(f"GET {path}", *fields)
    assert json.loads(body) == {
        "node": "rs1", "local": LOCAL, "peer": PEER, "method": "GET", "path": path,
    }  # fmt: skip


def test_head_tells_the_length_of_the_body_that_it_leaves_out() -> None:
    head, body, following = answer("HEAD /bytes/100")
    assert (body, following) == ("", 0)
    assert "\r\nContent-Length: 100" in head


def test_close() -> None:
    assert "\r\nConnection: close" in answer("GET /", "Connection: close")[0]


@pytest.mark.parametrize("n", ["x", "-1", "", str(BYTES_LIMIT + 1), "9" * 40])
def test_a_bad_number_of_bytes_is_refused(n: str) -> None:
    assert answer(f"GET /bytes/{n}")[0].startswith("HTTP/1.1 400 ")


def test_bytes() -> None:
    head, body, following = answer("GET /bytes/1000")
    assert (body, following) == ("", 1000)
    assert "\r\nContent-Length: 1000" in head


def test_the_pattern_tells_its_offset() -> None:
    assert pattern(0, 32) == b"000000000000000\n000000000000010\n"
    assert pattern(len(BLOCK) - 16, 48) == b"00000000000fff0\n000000000000000\n000000000000010\n"
    whole = pattern(0, 3 * len(BLOCK))
    assert all(pattern(o, 100) == whole[o : o + 100] for o in range(0, len(whole) - 100, 999))


def test_an_unknown_method_learns_the_known_ones() -> None:
    head, _, _ = answer("BREW /")
    assert head.startswith("HTTP/1.1 405 ")
    assert "\r\nAllow: GET, HEAD, POST, PUT" in head


def test_the_date_is_http_s() -> None:
    for now in (0, 951782400, 1795458768, 1798761599):
        assert http._date(now).decode() == formatdate(now, usegmt=True)
