"""What the decoder makes of frames that the witnesses do not know, or get wrong on purpose."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE
from scapy.packet import Packet, Raw

from lvsctl.capture.decode import MOST_LAYERS, decode
from lvsctl.model.addresses import Endpoint
from lvsctl.model.frame import Direction, Frame, LinkType, RawFrame, Tap
from lvsctl.model.packet import Flow, Gre, Gue, TcpFlag
from lvsctl.model.service import Encapsulation
from lvsctl.model.walk import Change, header_fields
from lvsctl.walk.phrases import changes_of
from tests.unit.decode_samples import (
    CLIENT,
    DIP,
    HELLO,
    RIP,
    VIP,
    data,
    ethernet,
    gue,
    gue_frame,
    request,
    request6,
    samples,
    syn,
    tunnelled,
)

LAN = Tap("director", "lan")


def raw(content: bytes | Packet, link: LinkType = LinkType.ETHERNET, length: int = 0) -> RawFrame:
    wire = bytes(content)
    return RawFrame(1, LAN, Direction.IN, link, length or len(wire), wire)


def decoded(content: bytes | Packet, link: LinkType = LinkType.ETHERNET) -> Frame:
    return decode(raw(content, link))


def test_a_request_reads_like_tcpdump() -> None:
    frame = decode(raw(samples()["tcp syn"]), 7)

    assert frame.number == 7
    assert frame.summary() == (
        "10.10.0.10:45678 → 10.10.0.100:80 TCP SYN ttl 64 | 02:00:0a:0a:00:0a → 02:00:0a:0a:00:01"
    )
    assert frame.flow == Flow(6, Endpoint(ip_address(CLIENT), 45678), Endpoint(ip_address(VIP), 80))
    assert frame.tcp is not None
    assert frame.tcp.is_syn
    assert frame.tcp.mss == 1460
    assert not frame.malformed


def test_an_encapsulated_request_shows_both_headers() -> None:
    frame = decoded(samples()["ipip"])

    assert frame.outer is not None
    assert frame.inner is not None
    assert (str(frame.outer.dst), str(frame.inner.dst)) == (RIP, VIP)
    assert frame.packet.encapsulation is Encapsulation.IPIP
    assert frame.payload == bytes(HELLO)
    assert frame.summary().startswith("10.10.0.1 → 10.10.0.11 ttl 64 IPIP [10.10.0.10:45678 → ")


def test_a_router_lowers_what_ipv6_calls_hop_limit() -> None:
    before, after = (
        decoded(ethernet() / IPv6(src="fd00::1", dst="fd00::2", hlim=hlim) / TCP())
        for hlim in (64, 63)
    )
    assert changes_of(before, after) == (Change("hop limit", "64", "63"),)
    assert ("hop limit", "63") in header_fields(after)
    assert after.summary().startswith("[fd00::1]:20 → [fd00::2]:80 TCP SYN hop limit 63")


def test_routing_changes_nothing_but_the_ttl() -> None:
    before = decoded(ethernet() / request(ttl=64) / data()).outer
    after = decoded(ethernet() / request(ttl=63) / data()).outer
    other = decoded(ethernet() / request(ttl=63, id=3) / data()).outer

    assert before is not None
    assert after is not None
    assert other is not None
    assert before.same_but_ttl(after)
    assert not before.same_but_ttl(other)


@pytest.mark.parametrize(
    ("header", "inner", "expected"),
    [
        (gue(), request(ttl=63) / data(), Gue(40000, 6080, 0, 4, 0, 0, 0, checksum=True)),
        (gue(protocol=41), request6() / data(), Gue(40000, 6080, 0, 41, 0, 0, 0, checksum=True)),
        (
            gue(1, struct.pack(">IHH", 1 << 31, 20, 36)),  # as net/ipv4/fou_core.c lays it out
            request() / data(),
            Gue(40000, 6080, 0, 4, 1, 1 << 31, 0, checksum=True),
        ),
        (b"", request() / data(), Gue(40000, 6080, 1, 4, 0, 0, 0, checksum=True)),
        (b"", request6() / data(), Gue(40000, 6080, 1, 41, 0, 0, 0, checksum=True)),
    ],
    ids=["plain", "ipv6 inside", "remote checksum", "variant 1", "variant 1, ipv6"],
)
def test_gue(header: bytes, inner: Packet, expected: Gue) -> None:
    frame = decoded(gue_frame(header, inner))

    assert frame.packet.tunnels == (expected,)
    assert expected.remote_checksum == bool(expected.private)
    assert frame.packet.encapsulation is Encapsulation.GUE
    assert len(frame.ips) == 2
    assert str(frame.ips[1].dst) == inner.dst
    assert frame.payload == bytes(HELLO)
    assert not frame.malformed


def test_gue_around_gre() -> None:
    frame = decoded(gue_frame(gue(protocol=47), GRE(proto=0x0800) / request() / data()))

    assert [type(tunnel) for tunnel in frame.packet.tunnels] == [Gue, Gre]
    assert [tunnel.carrier for tunnel in frame.packet.tunnels] == [0, 0]
    assert frame.packet.encapsulation is Encapsulation.GUE
    assert frame.payload == bytes(HELLO)


def test_the_port_of_gue_can_be_another_or_none() -> None:
    wire = gue_frame(gue(), request() / data(), port=7000)

    assert decode(raw(wire)).udp is not None
    assert len(decode(raw(wire), gue_ports={7000}).ips) == 2
    assert decode(raw(gue_frame(gue(), request() / data())), gue_ports=()).udp is not None


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"", "gue: 0 of 1 bytes"),
        (b"\x00\x04", "gue: 2 of 4 bytes"),
        (b"\x1f\x04\x00\x00", "gue: 4 of 128 bytes"),
        (b"\x80\x04\x00\x00", "gue: variant 2"),
        (b"\x50\x04\x00\x00", "gue: variant 1 with IP version 5"),
        (b"\x20\x04\x00\x00", "gue: a control message"),
        (b"\x00\x04\x00\x01", "gue private flags: 4 of 8 bytes"),
    ],
)
def test_what_is_not_gue_stays_udp(header: bytes, why: str) -> None:
    frame = decoded(gue_frame(header, Raw(b"")))

    assert frame.udp is not None
    assert frame.payload == header
    assert frame.malformed == why


def test_a_tunnel_devices_frames_begin_with_ip() -> None:
    inner = decoded(request() / data(), LinkType.RAW)
    gre = decoded(IP(src=DIP, dst=RIP) / GRE() / request() / data(), LinkType.RAW)

    assert inner.ethernet is None
    assert inner.summary() == "10.10.0.10:45678 → 10.10.0.100:80 TCP PSH-ACK 18 bytes ttl 64"
    assert len(gre.ips) == 2
    assert decoded(b"", LinkType.RAW).malformed == "no IP header"


def test_padding_is_not_payload() -> None:
    wire = bytes(ethernet() / request() / TCP(flags="A"))

    assert decoded(wire + bytes(6)).payload == b""


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"", "ethernet: 0 of 14 bytes"),
        (bytes(ethernet() / request() / syn())[:30], "ipv4: 16 of 20 bytes"),
        (bytes(ethernet() / request6() / syn())[:50], "ipv6: 36 of 40 bytes"),
        (bytes(ethernet() / request(ihl=3) / syn()), "ipv4: header length 12"),
        (bytes(ethernet() / request(len=7) / syn()), "ipv4: total length 7 is less than"),
        (bytes(ethernet() / request(version=5) / syn()), "ipv4: version 5"),
        (bytes(ethernet() / request(len=4000) / syn()), "ip: total length 4000, 60 bytes there"),
        (bytes(ethernet() / request() / TCP(dataofs=3)), "tcp: header length 12"),
        (bytes(ethernet() / request() / TCP(dataofs=15)), "tcp options: 20 of 60 bytes"),
        (bytes(ethernet() / request() / TCP(flags="S", dataofs=6) / Raw(b"\x02\x00\0\0")),
         "tcp: option 2 with length 0"),
        (bytes(ethernet() / request() / TCP(flags="S", dataofs=6) / Raw(b"\x01\x01\x01\x02")),
         "tcp: option 2 with length 0"),
        (bytes(ethernet() / request() / UDP(len=3) / HELLO), "udp: length 3"),
        (bytes(ethernet() / request() / UDP(len=300) / HELLO), "udp: length 300, 26 bytes there"),
        (bytes(ethernet() / request(proto=17) / Raw(b"abc")), "udp: 3 of 8 bytes"),
        (bytes(ethernet() / request(proto=132) / Raw(b"abcdefghij")), "sctp: 10 of 12 bytes"),
        (bytes(ethernet() / request() / ICMP())[:40], "ip: total length 28"),
        (bytes(tunnelled(47) / Raw(b"\x00\x01\x08\x00")), "gre: version 1"),
        (bytes(tunnelled(47) / Raw(b"\x40\x00\x08\x00")), "gre: source routing"),
        (bytes(tunnelled(47) / Raw(b"\xb0\x00\x08\x00abc")), "gre: 7 of 16 bytes"),
        (bytes(ethernet())[:12] + b"\x08\x06" + bytes(20), "arp: 20 of 28 bytes"),
        (bytes(ethernet())[:12] + b"\x81\x00\x00\x01" * 6, "more than 4 vlan tags"),
        (bytes(ethernet() / IPv6(nh=0) / Raw(b"\x00\xff" + bytes(8))),
         "ipv6 extension header: 10 of 2048 bytes"),
        (bytes(ethernet() / IPv6(nh=60) / Raw((b"\x3c\0" + bytes(6)) * 20)),
         "ipv6: more than 16 extension headers"),
        (bytes(ethernet() / IPv6(nh=58) / Raw(b"\x87\0" + bytes(22) + b"\1\0" + bytes(6))),
         "nd: option 1 with length 0"),
        (bytes(ethernet() / IPv6(nh=58) / Raw(b"\x87\0" + bytes(10))), "nd: 12 of 24 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_hostile_frames_say_where_they_break(wire: bytes, why: str) -> None:
    frame = decoded(wire)

    assert frame.malformed.startswith(why)
    assert f"malformed: {why}" in frame.summary()


def test_encapsulation_ends_at_a_depth() -> None:
    wire: Packet = request() / data()
    for _ in range(20):
        wire = IP(src=DIP, dst=RIP, proto=4) / wire

    frame = decoded(ethernet() / wire)

    assert len(frame.ips) == MOST_LAYERS
    assert frame.malformed == f"more than {MOST_LAYERS} IP headers"


def test_quotations_of_quotations_end_too() -> None:
    wire: Packet = request() / data()
    for _ in range(20):
        wire = IP(src=DIP, dst=RIP) / ICMP(type=3) / wire

    packet = decoded(ethernet() / wire).packet
    for _ in range(MOST_LAYERS):
        assert packet.transport is not None
        assert packet.transport.quoted is not None  # type: ignore[union-attr]
        packet = packet.transport.quoted  # type: ignore[union-attr]
    assert packet.malformed == f"more than {MOST_LAYERS} IP headers"


def test_a_short_quotation_still_has_its_ports() -> None:
    quoted = bytes(request() / data())[:28]  # RFC 792: the header and eight bytes
    icmp = decoded(ethernet() / IP(src=DIP, dst=CLIENT) / ICMP(type=3, code=3) / Raw(quoted)).icmp

    assert icmp is not None
    assert icmp.quoted is not None
    assert str(icmp.quoted.flow) == "10.10.0.10:45678 → 10.10.0.100:80"
    assert icmp.quoted.malformed == "tcp: 8 of 20 bytes"


def test_a_frame_cut_by_snaplen_is_not_malformed() -> None:
    wire = samples()["udp"]

    frame = decode(raw(wire[:50], length=len(wire)))

    assert frame.malformed == ""
    assert len(frame.payload) == 8
    assert frame.length == len(wire)


def test_flags_are_said_as_people_say_them() -> None:
    assert str(TcpFlag.SYN | TcpFlag.ACK) == "SYN-ACK"
    assert str(TcpFlag(0)) == "no flags"


def well_formed(frame: Frame) -> None:
    """What holds of any frame whatever, and that looking at it raises nothing."""
    assert len(frame.ips) <= MOST_LAYERS
    assert len(frame.packet.tunnels) <= 2 * MOST_LAYERS
    assert frame.payload in frame.raw.data
    assert frame.summary()
    assert frame.flow is None or frame.flow.reply.reply == frame.flow


LINKS = st.sampled_from(LinkType)


@given(st.binary(max_size=300), LINKS)
def test_garbage_is_a_frame_too(garbage: bytes, link: LinkType) -> None:
    well_formed(decoded(garbage, link))


@given(st.sampled_from(sorted(samples())), st.binary(max_size=120))
def test_garbage_behind_an_ethernet_and_ip_header(name: str, garbage: bytes) -> None:
    well_formed(decoded(samples()[name][:34] + garbage))


REAL = [*samples().values(), gue_frame(gue(), request() / data())]
EDITS = st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255)), max_size=8)


@settings(max_examples=500)
@given(st.sampled_from(REAL), EDITS, st.integers(0, 300), LINKS)
def test_mutated_and_truncated_frames(
    wire: bytes, edits: list[tuple[int, int]], end: int, link: LinkType
) -> None:
    mutated = bytearray(wire)
    for at, value in edits:
        if at < len(mutated):
            mutated[at] = value

    well_formed(decoded(bytes(mutated[:end]), link))


def test_every_prefix_of_every_sample() -> None:
    for wire in REAL:
        for end in range(min(len(wire), 200)):
            well_formed(decode(raw(wire[:end])))
            well_formed(decode(raw(wire[:end], length=len(wire))))
