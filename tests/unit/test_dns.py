"""DNS messages against the bytes of RFC 1035 and against scapy's decoder."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import Any, cast

import pytest

from lvsctl.model import dns
from lvsctl.resources import respond
from lvsctl.traffic.connection import IP_PKTINFO, UdpServer
from lvsctl.traffic.http import ResponseBuilder
from lvsctl.traffic.replies import parse_datagram

LOCAL, PEER = "10.70.0.100:53", "10.70.0.10:40000"
ADDRESSES = (ip_address("10.70.0.11"), ip_address("fd00::11"))

# RFC 1035, section 4.1: ID, flags (RD), one question; section 4.1.2: QNAME, QTYPE A, QCLASS IN.
# The name is that of the example in section 4.1.4.
QUERY = bytes.fromhex("beef 0100 0001 0000 0000 0000 01 46 03 495349 04 41525041 00 0001 0001")
WITH_EDNS = QUERY[:10] + b"\0\1" + QUERY[12:] + bytes.fromhex("00 0029 04d0 0000 0000 0000")


def of_type(kind: int) -> bytes:
    return QUERY[:-4] + kind.to_bytes(2, "big") + QUERY[-2:]


@pytest.mark.parametrize("query", [QUERY, WITH_EDNS])
def test_a_query_by_the_book_is_answered_with_the_rip(query: bytes) -> None:
    reply = ResponseBuilder("rs1", ADDRESSES).datagram(query, LOCAL, PEER)
    # QR, AA and RD set, RCODE 0; the question again; a pointer to its name at 12, A, IN, TTL 0.
    assert reply[:12] == bytes.fromhex("beef 8500 0001 0001 0000 0000")
    assert reply[12 : len(QUERY)] == QUERY[12:]
    assert reply[len(QUERY) :] == bytes.fromhex("c00c 0001 0001 00000000 0004 0a46000b")


def test_scapy_reads_what_is_encoded() -> None:
    from scapy.layers.dns import DNS

    asked = DNS(dns.encode_query(7, "example.org", dns.AAAA))
    assert (asked.id, asked.qr, asked.qd[0].qname, asked.qd[0].qtype) == (7, 0, b"example.org.", 28)
    builder = ResponseBuilder("rs1", ADDRESSES)
    said = DNS(builder.datagram(of_type(dns.TXT), LOCAL, PEER))
    assert said.an[0].rdata == [b"rs1 answered on 10.70.0.100:53, request from 10.70.0.10:40000"]
    six = DNS(builder.datagram(of_type(dns.AAAA), LOCAL, PEER))
    assert (six.ancount, six.an[0].rdata) == (1, "fd00::11")
    mail = DNS(builder.datagram(of_type(15), LOCAL, PEER))
    assert (mail.rcode, mail.ancount) == (0, 0)


def test_a_datagram_is_answered_from_the_address_that_it_was_sent_to() -> None:
    class Socket:
        """Receives one query, sent to the VIP, and keeps what is sent."""

        def __init__(self) -> None:
            self.coming, self.sent = [QUERY], list[tuple[Any, ...]]()

        def getsockname(self) -> tuple[str, int]:
            return "0.0.0.0", 53

        def recvmsg(self, size: int, *_: object) -> tuple[Any, ...]:
            if not self.coming:
                raise BlockingIOError
            told = struct.pack("=i4s4s", 2, bytes(4), ip_address("10.70.0.100").packed)
            data = self.coming.pop()[:size]
            return data, [(socket.IPPROTO_IP, IP_PKTINFO, told)], 0, ("10.70.0.10", 40000)

        def sendmsg(self, *words: Any) -> None:
            self.sent.append(words)

    sock = Socket()
    UdpServer(cast("socket.socket", sock), ResponseBuilder("rs1", ADDRESSES)).ready()
    ((data, controls, _, peer),) = sock.sent
    assert dns.summary(data[0]) == "DNS answer A 10.70.0.11"
    assert controls[0][2][4:8] == ip_address("10.70.0.100").packed
    assert peer == ("10.70.0.10", 40000)


def test_the_client_reads_who_answered() -> None:
    query = dns.encode_query(1, "real-server", dns.TXT)
    said = parse_datagram(ResponseBuilder("rs2", ADDRESSES).datagram(query, LOCAL, PEER))
    assert (said.node, str(said.local), str(said.peer)) == ("rs2", LOCAL, PEER)
    assert parse_datagram(QUERY).node == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"lvsctl /\n",
        QUERY[:-1],  # the class is cut off
        QUERY[:2] + b"\x85" + QUERY[3:],  # a response
        QUERY[:2] + b"\x29" + QUERY[3:],  # opcode 5 (update)
        QUERY[:5] + b"\2" + QUERY[6:],  # two questions
        QUERY[:12] + b"\xc0\x0c" + QUERY[-4:],  # a name that points to itself
        QUERY[:12] + b"\x3f" * 300,  # a name without an end
    ],
)
def test_what_is_no_query_gets_the_line(data: bytes) -> None:
    line = b"rs1 answered on 10.70.0.100:53, request from 10.70.0.10:40000\n"
    assert ResponseBuilder("rs1", ADDRESSES).datagram(data, LOCAL, PEER) == line


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (of_type(dns.TXT), "DNS answer TXT rs1 answered"),
        (WITH_EDNS, "DNS answer A no record"),
        (b"lvsctl /\n", ""),
        (QUERY[:-1], ""),
    ],
)
def test_the_scripts_responder_answers_queries_too(query: bytes, said: str) -> None:
    reply = respond.dns_response(query, b"rs1 answered")
    assert dns.summary(reply) == said
    assert reply[:2] == (query[:2] if said else b"")


def test_messages_are_told_in_a_few_words() -> None:
    assert dns.summary(QUERY) == "DNS query A F.ISI.ARPA"
    reply = ResponseBuilder("rs1", ADDRESSES).datagram
    assert dns.summary(reply(QUERY, LOCAL, PEER)) == "DNS answer A 10.70.0.11"
    assert dns.summary(reply(of_type(15), LOCAL, PEER)) == "DNS answer MX no record"
    assert dns.summary(b"lvsctl /\n") == ""
