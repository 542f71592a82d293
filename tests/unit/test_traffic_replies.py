"""Answers out of bytes, as the client reads them."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.model.addresses import Endpoint
from lvsctl.traffic.http import BadRequest, ResponseBuilder, parse_single_request
from lvsctl.traffic.replies import (
    ReplyReader,
    ServerIdentity,
    parse_endpoint,
    parse_identity,
    parse_single_reply,
)

LOCAL, PEER = "[fd00::100]:80", "[fd00::10]:45678"
SAID = ServerIdentity("rs1", parse_endpoint(LOCAL), parse_endpoint(PEER))


def from_responder(path: str) -> bytes:
    request = parse_single_request(f"GET {path} HTTP/1.1\r\nHost: v\r\n\r\n".encode())
    assert request
    return ResponseBuilder("rs1").answer(request, LOCAL, PEER)[0]


LINE = f"rs1 answered on {LOCAL}, request from {PEER}\n".encode()
CHUNKED = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(LINE), LINE)
)


@pytest.mark.parametrize("answer", [from_responder("/"), from_responder("/x.json"), CHUNKED])
def test_split_at_every_byte(answer: bytes) -> None:
    for place in range(len(answer)):
        reader = ReplyReader()
        assert not reader.feed(answer[:place])
        assert reader.feed(answer[place:])
        assert (reader.status, reader.said) == (200, SAID)


@pytest.mark.parametrize("path", ["/", "/x.json"])
def test_a_lone_answer_is_what_the_reader_reads(path: str) -> None:
    answer = from_responder(path)
    assert parse_single_reply(answer) == (200, SAID)
    assert parse_single_reply(answer[:-1]) is None
    assert parse_single_reply(answer + b"x") is None


@pytest.mark.parametrize(
    "answer", [CHUNKED, b"HTTP/1.0 200 OK\r\n\r\n" + LINE, b"", b"SSH-2.0\r\n\r\n"]
)
def test_other_answers_are_left_to_the_reader(answer: bytes) -> None:
    assert parse_single_reply(answer) is None


def test_an_answer_until_the_end_of_the_connection() -> None:
    reader = ReplyReader()
    assert not reader.feed(b"HTTP/1.0 200 OK\n\n" + LINE)
    assert reader.end()
    assert reader.said == SAID


def test_another_server_s_answer_names_nobody() -> None:
    reader = ReplyReader()
    assert reader.feed(b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Length: 4\r\n\r\nno!\n")
    assert (reader.status, reader.said) == (404, ServerIdentity())


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_body(status: int) -> None:
    assert ReplyReader().feed(b"HTTP/1.1 %d x\r\nContent-Length: 9\r\n\r\n" % status)


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-x\r\n", b"\x00", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nx\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 9999],
)  # fmt: skip
def test_no_answer(answer: bytes) -> None:
    with pytest.raises(BadRequest):
        ReplyReader().feed(answer)


@given(st.binary(max_size=200))
def test_noise(noise: bytes) -> None:
    parse_identity(noise)
    for start in (
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\n\n",
    ):
        with contextlib.suppress(BadRequest):
            ReplyReader().feed(start + noise)


@pytest.mark.parametrize("body", [b"{", b"{}", b"[" * 9999, b'{"local": 5}', b"{" * 9999, b"1"])
def test_odd_json(body: bytes) -> None:
    assert parse_identity(body) == ServerIdentity()


def test_ends() -> None:
    assert parse_endpoint("10.0.0.1:80") == Endpoint(ip_address("10.0.0.1"), 80)
    assert str(parse_endpoint("[fd00::1]:80")) == "[fd00::1]:80"
    assert parse_endpoint("nonsense") is None
    assert parse_endpoint("10.0.0.1:x") is None
