"""Requests out of bytes: the same ones however the bytes are split."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvsctl.traffic.http import (
    HEAD_LIMIT,
    LINE_LIMIT,
    BadRequest,
    Request,
    RequestReader,
    head_of,
    parse_single_request,
)

GET = b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n"
SAMPLE = (
    GET,
    b"\r\nHEAD /x?y=1 HTTP/1.0\n\n",
    b"POST /echo HTTP/1.1\r\nHost: v\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    (
        b"PUT /a.json HTTP/1.1\r\nHost: v\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
    ),
    b"POST /echo HTTP/1.1\r\nHost: v\r\nTransfer-Encoding: CHUNKED\r\n\r\n2\nhi\n0\n\n",
    b"GET http://vip/abs HTTP/1.1\r\nHost: vip\r\nConnection: x, Close\r\n\r\n",
)


def read(parts: list[bytes]) -> tuple[list[Request], int]:
    """The requests in ``parts``, and the status of the refusal that ended them (0: none)."""
    reader, found = RequestReader(), []
    for part in parts:
        reader.feed(part)
        try:
            while request := reader.next():
                found.append(request)
        except BadRequest as bad:
            return found, bad.status
    return found, 0


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


def test_the_sample_reads_as_it_is_meant() -> None:
    requests, status = read([b"".join(SAMPLE)])
    assert status == 0
    assert [r.head.method for r in requests] == ["GET", "HEAD", "POST", "PUT", "POST", "GET"]
    assert [r.head.path for r in requests] == ["/", "/x?y=1", "/echo", "/a.json", "/echo", "/abs"]
    assert [r.head.keep_alive for r in requests] == [True, False, True, True, True, False]
    assert [r.head.wants_json for r in requests] == [False, False, False, True, False, False]
    assert [r.received for r in requests] == [0, 0, 5, 13, 2, 0]
    assert requests[2].sha256 == hashlib.sha256(b"hello").hexdigest()
    assert requests[4].sha256 == hashlib.sha256(b"hi").hexdigest()


def test_split_at_every_byte() -> None:
    stream = b"".join(SAMPLE)
    whole = read([stream])
    assert read([stream[i : i + 1] for i in range(len(stream))]) == whole
    for place in range(len(stream)):
        assert read([stream[:place], stream[place:]]) == whole


@given(
    st.lists(st.sampled_from([*SAMPLE, b"G@T / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"]), max_size=6),
    st.lists(st.integers(0, 5000), max_size=20),
)
def test_any_split_of_any_mixture(stream: list[bytes], places: list[int]) -> None:
    data = b"".join(stream)
    assert read(cut(data, places)) == read([data])


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_noise_is_refused_or_waited_for(noise: bytes, places: list[int]) -> None:
    # What was read before the refusal is the same too; nothing but BadRequest escapes.
    assert read(cut(GET + noise, places)) == read([GET + noise])


@given(st.binary(max_size=5000), st.lists(st.integers(1, 700), min_size=1, max_size=30))
def test_a_body_arrives_whole_in_any_chunks(body: bytes, sizes: list[int]) -> None:
    chunks, rest = [], body
    for size in sizes:
        part, rest = rest[:size], rest[size:]
        if part:
            chunks.append(b"%x\r\n%b\r\n" % (len(part), part))
    chunks.append(b"%x\r\n%b\r\n" % (len(rest), rest) if rest else b"")
    head = b"POST /echo HTTP/1.1\r\nHost: v\r\nTransfer-Encoding: chunked\r\n\r\n"
    (request,), _ = read([head, *chunks, b"0\r\n\r\n"])
    assert (request.received, request.sha256) == (len(body), hashlib.sha256(body).hexdigest())


CHUNKED = b"POST / HTTP/1.1\r\nHost: v\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),  # TLS: no line end to wait for
        (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET  / HTTP/1.1\r\nHost: v\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: v\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: v\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost : v\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: v\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: v\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: v\rx\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nnocolon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: v\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: v\r\nContent-Length: +1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: v\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: v\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: v\r\nContent-Length:\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: v\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (CHUNKED.replace(b"Host", b"Content-Length: 3\r\nHost"), 400),
        (CHUNKED.replace(b"chunked", b"gzip, chunked"), 501),
        (CHUNKED + b"x\r\n", 400),
        (CHUNKED + b"-1\r\n", 400),
        (CHUNKED + b"1\r\nab\r\n", 400),
        (CHUNKED + b"f" * 16 + b"\r\n", 400),
        (CHUNKED + b"1" * LINE_LIMIT, 400),
        (CHUNKED + b"0\r\n" + b"t: x\r\n" * HEAD_LIMIT, 431),
        (b"GET /" + b"a" * HEAD_LIMIT, 431),
        (GET[:-2] + b"a: b\r\n" * HEAD_LIMIT + b"\r\n", 431),
        # Whitespace on which a careless pattern takes hours.
        (GET[:-2] + b"a:" + b" " * 9000 + b"\x01" + b" " * 5000 + b"\r\n\r\n", 400),
    ],
)
def test_hostile_input(data: bytes, status: int) -> None:
    assert read([data]) == ([], status)
    assert read([data[i : i + 97] for i in range(0, len(data), 97)]) == ([], status)
    assert parse_single_request(data) is None


def test_the_same_length_twice_is_one_length() -> None:
    head = head_of(b"POST / HTTP/1.1\nHost: v\nContent-Length: 3\nContent-Length: 3")
    assert head.length == 3


@pytest.mark.parametrize("data", [GET + GET, GET[:-1], b"", GET + b"x"])
def test_only_one_whole_request_stands_alone(data: bytes) -> None:
    assert parse_single_request(data) is None


def test_a_lone_request_is_what_the_reader_reads() -> None:
    for sample in SAMPLE:
        assert [parse_single_request(sample)] == read([sample])[0]
