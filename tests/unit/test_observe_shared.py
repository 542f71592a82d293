"""Frames whose total length the kernel lowered after they had crossed the wire."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from lvsctl.capture.listener import restore_total_length


def frame(packet: Packet) -> bytes:
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)


GUE = frame(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=6080) / Raw(b"\0\4\0\0" + b"x" * 60))


def lowered(data: bytes, by: int) -> bytes:
    """As fou_recv_pull leaves it: the checksum stays."""
    length = int.from_bytes(data[16:18], "big") - by
    return data[:16] + length.to_bytes(2, "big") + data[18:]


@pytest.mark.parametrize("by", [8, 12, 16])
def test_what_the_checksum_confirms_is_put_back(by: int) -> None:
    assert restore_total_length(lowered(GUE, by), len(GUE)) == GUE


GUE6 = frame(IPv6(src="fd00::1", dst="fd00::2") / UDP(dport=6080) / Raw(b"\0\4\0\0" + b"x" * 60))


def test_what_udp_confirms_is_put_back_in_ipv6() -> None:
    there = int.from_bytes(GUE6[18:20], "big")
    changed = GUE6[:18] + (there - 12).to_bytes(2, "big") + GUE6[20:]
    assert restore_total_length(changed, len(GUE6)) == GUE6
    assert restore_total_length(changed, len(GUE6) + 4) == changed
    assert restore_total_length(GUE6, len(GUE6)) == GUE6


OTHERS = {
    "as it was": (GUE, len(GUE)),
    "padded": (GUE + bytes(6), len(GUE) + 6),
    "cut by a snap length": (lowered(GUE, 12)[:30], len(GUE)),
    "another field is wrong too": (lowered(GUE, 12)[:22] + b"\x07" + GUE[23:], len(GUE)),
    "not UDP": (lowered(frame(IP(dst="10.0.0.2", proto=4) / Raw(bytes(60))), 12), 94),
    "not IPv4": (GUE[:12] + b"\x86\xdd" + lowered(GUE, 12)[14:], len(GUE)),
    "nothing": (b"", 0),
    "a length that IP cannot say": (lowered(GUE, 12), 1 << 20),
}


@pytest.mark.parametrize("what", OTHERS)
def test_everything_else_is_left_alone(what: str) -> None:
    data, length = OTHERS[what]
    assert restore_total_length(data, length) == data
