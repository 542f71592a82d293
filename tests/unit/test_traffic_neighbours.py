"""The neighbour solicitation that evidence begins with, taken apart by the decoder and scapy."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6

from lvsctl.capture.decode import decode
from lvsctl.model.frame import Direction, LinkType, RawFrame, Tap
from lvsctl.traffic import neighbours

MAC = bytes.fromhex("02000a0a000a")
SENDER = ip_address("fe80::aff:fe0a:a")


@pytest.mark.parametrize(
    ("wanted", "group", "mac"),
    [
        ("fd00::100", "ff02::1:ff00:100", "33:33:ff:00:01:00"),
        ("fd00::abcd:12ff:fedc:ba98", "ff02::1:ffdc:ba98", "33:33:ff:dc:ba:98"),
    ],
)
def test_a_solicitation_goes_to_the_group_of_the_address(wanted: str, group: str, mac: str) -> None:
    data = neighbours.solicitation(MAC, SENDER, ip_address(wanted))
    raw = RawFrame(0, Tap("client", "lan"), Direction.OUT, LinkType.ETHERNET, len(data), data)
    frame = decode(raw)
    assert (str(frame.asks_for), frame.asked_from) == (wanted, SENDER)
    assert frame.ethernet is not None
    assert frame.outer is not None
    assert frame.nd is not None
    assert (frame.ethernet.dst, str(frame.outer.dst), frame.outer.ttl) == (mac, group, 255)
    assert frame.nd.mac == MAC.hex(":")
    right = IPv6(data[14:])
    del right[ICMPv6ND_NS].cksum  # scapy computes it anew
    assert bytes(right) == data[14:]


@pytest.mark.parametrize(
    ("target", "option", "answerer"),
    [
        ("fd00::100", "0201020000000001", "02:00:00:00:00:01"),
        ("fd00::100", "", "02:00:0a:0a:00:0a"),  # RFC 4861 lets a unicast answer leave it out
        ("fd00::101", "0201020000000001", ""),
    ],
)
def test_an_advertisement_is_of_who_gives_its_mac_address(
    target: str, option: str, answerer: str
) -> None:
    message = bytes((136, 0, 0, 0, 0x60, 0, 0, 0)) + ip_address(target).packed
    message += bytes.fromhex(option)
    packet = bytes((0x60, 0, 0, 0, 0, len(message), 58, 255)) + bytes(32) + message
    frame = bytes(6) + MAC + b"\x86\xdd" + packet
    assert neighbours._advertiser(frame, ip_address("fd00::100")) == answerer
    assert neighbours._advertiser(frame[:60], ip_address("fd00::100")) == ""
