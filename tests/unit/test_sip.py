"""SIP messages, against RFC 3261 and what IPVS's persistence engine finds in them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from lvsctl.model import sip
from lvsctl.model.addresses import Endpoint
from lvsctl.resources.respond import sip_response

SERVER = Endpoint(ip_address("10.75.0.100"), 5060)
CLIENT = Endpoint(ip_address("fd00::a"), 40000)
REQUEST = sip.encode_options(SERVER, CLIENT, "a84b4c76e66710", 7)
TEXT = b"rs1 answered on 10.75.0.100:5060, request from 10.75.0.10:40000\n"
INVITE = (
    b"INVITE sip:bob@biloxi.com SIP/2.0\r\n"
    b"v: SIP/2.0/UDP bigbox3.site3.atlanta.com;branch=z9hG4bK77ef4c2312983.1\r\n"
    b"Via: SIP/2.0/UDP pc33.atlanta.com;branch=z9hG4bKnashds8\r\n ;received=192.0.2.1\r\n"
    b"To: Bob <sip:bob@biloxi.com>;tag=314159\r\n"
    b"f: Alice <sip:alice@atlanta.com>;tag=1928301774\r\n"
    b"i: a84b4c76e66710@pc33\r\n"
    b"CSeq: 314159 INVITE\r\n\r\nv=0"
)
"""The RFC's example (section 4), with compact names, a folded line and a dialog's tag."""


def test_a_response_has_the_fields_of_its_request() -> None:
    response = sip.encode_response(REQUEST, TEXT, "rs1")
    head, _, body = response.partition(b"\r\n\r\n")
    fields = head.decode().split("\r\n")
    asked = REQUEST.decode().split("\r\n")
    assert fields[0] == "SIP/2.0 200 OK"
    assert fields[1:6] == [asked[1], asked[3], f"{asked[4]};tag=rs1", asked[5], asked[6]]
    assert (body, sip.answered_text(response)) == (TEXT, TEXT)
    assert sip.call_of(response) == sip.call_of(REQUEST) == "a84b4c76e66710"
    assert sip.summary(REQUEST) == "SIP OPTIONS, Call-ID a84b4c76e66710"
    assert sip.summary(response) == "SIP 200 OK, Call-ID a84b4c76e66710"


def test_compact_names_folded_lines_and_every_via() -> None:
    fields = sip.encode_response(INVITE, b"", "x").decode().split("\r\n")
    assert [line.partition(":")[0] for line in fields[1:6]] == [
        "Via",
        "Via",
        "To",
        "From",
        "Call-ID",
    ]
    assert fields[2].endswith("nashds8 ;received=192.0.2.1")
    assert fields[3].endswith(";tag=314159")
    assert sip.call_of(INVITE) == "a84b4c76e66710@pc33"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"lvsctl /\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS sip:x SIP/2.0\r\nCall-ID: 1\r\n\r\n",
        REQUEST[:-2],
        sip.encode_response(REQUEST, TEXT, "rs1"),
        b"OPTIONS sip:x SIP/2.0\r\n" + b"a" * 65000,
    ],
)
def test_what_is_no_whole_request_is_not_answered(data: bytes) -> None:
    assert sip.encode_response(data, TEXT, "rs1") == b""


def test_the_scripts_responder_answers_alike() -> None:
    assert sip.answered_text(sip_response(REQUEST, TEXT)) == TEXT
    assert sip.call_of(sip_response(REQUEST, TEXT)) == "a84b4c76e66710"
    assert sip_response(b"lvsctl /\n", TEXT) == b""
