"""Frames made by scapy, by name, for the tests of our decoding.

client 10.10.0.10, fd00:10::10 · VIP 10.10.0.100, fd00:10::100
director (DIP) 10.10.0.1, fd00:10::1 · rs1 (RIP) 10.10.0.11, fd00:10::11
"""

from __future__ import annotations

from functools import cache
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Packet, Raw

CLIENT, VIP, DIP, RIP = "10.10.0.10", "10.10.0.100", "10.10.0.1", "10.10.0.11"
CLIENT6, VIP6, DIP6, RIP6 = "fd00:10::10", "fd00:10::100", "fd00:10::1", "fd00:10::11"
CLIENT_MAC, DIRECTOR_MAC, RS_MAC = "02:00:0a:0a:00:0a", "02:00:0a:0a:00:01", "02:00:0a:0a:00:0b"

HELLO = Raw(b"GET / HTTP/1.1\r\n\r\n")


def ethernet(src: str = CLIENT_MAC, dst: str = DIRECTOR_MAC) -> Packet:
    return Ether(src=src, dst=dst)


def request(**header: Any) -> Packet:
    """What the client sends to the VIP."""
    return IP(src=CLIENT, dst=VIP, **header)


def request6(**header: Any) -> Packet:
    return IPv6(src=CLIENT6, dst=VIP6, **header)


def syn() -> Packet:
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    return TCP(sport=45678, dport=80, flags="S", seq=0xDEADBEEF, options=options)


def data() -> Packet:
    segment = TCP(sport=45678, dport=80, flags="PA", seq=7, ack=9, window=501)
    segment.options = [("NOP", None), ("NOP", None), ("Timestamp", (5, 6))]
    return segment / HELLO


def tunnelled(protocol: int = 4) -> Packet:
    """The director's outer header, to the real server."""
    return ethernet(DIRECTOR_MAC, RS_MAC) / IP(src=DIP, dst=RIP, ttl=64, id=0x77, proto=protocol)


def tunnelled6(header: int = 41) -> Packet:
    return ethernet(DIRECTOR_MAC, RS_MAC) / IPv6(src=DIP6, dst=RIP6, nh=header)


@cache
def samples() -> dict[str, bytes]:
    """Every frame by its name, as bytes on the wire; all begin with Ethernet."""
    inner, inner6 = request(ttl=63) / data(), request6(hlim=63) / data()
    datagram = UDP(sport=5, dport=53, len=2008)
    made = {
        "arp request": ethernet(dst="ff:ff:ff:ff:ff:ff")
        / ARP(op=1, hwsrc=CLIENT_MAC, psrc=CLIENT, pdst=VIP),
        "arp reply": ethernet(DIRECTOR_MAC, CLIENT_MAC)
        / ARP(op=2, hwsrc=DIRECTOR_MAC, psrc=VIP, hwdst=CLIENT_MAC, pdst=CLIENT),
        "arp padded": ethernet() / ARP(op=1, psrc=CLIENT, pdst=CLIENT) / Raw(bytes(18)),
        "tcp syn": ethernet() / request() / syn(),
        "tcp data": ethernet() / request(tos=0x28, flags="DF", id=4711) / data(),
        "tcp fin": ethernet() / request() / TCP(sport=1, dport=2, flags="FA"),
        "tcp reset padded": ethernet() / request() / TCP(flags="R") / Raw(b""),
        "tcp all flags": ethernet() / request() / TCP(flags="FSRPAUEC"),
        "tcp on ipv6": ethernet() / request6(tc=3, fl=0x12345) / data(),
        "udp": ethernet() / request() / UDP(sport=5000, dport=53) / Raw(b"q" * 30),
        "udp empty": ethernet() / request() / UDP(sport=5000, dport=9999),
        "udp on ipv6": ethernet() / request6() / UDP(sport=5000, dport=9999) / Raw(b"hi"),
        "sctp": ethernet() / request() / SCTP(sport=7, dport=8, tag=0x1234) / SCTPChunkInit(),
        "ip options": ethernet() / request(options=[IPOption(b"\x94\x04\x00\x00")]) / data(),
        "bad ip checksum": ethernet() / request(chksum=1) / data(),
        "unknown protocol": ethernet() / request(proto=99) / Raw(b"what"),
        "vlan": ethernet() / Dot1Q(vlan=42) / request() / data(),
        "two vlans": ethernet() / Dot1Q(vlan=42, type=0x8100) / Dot1Q(vlan=7) / request() / data(),
        "unknown ethertype": Ether(src=CLIENT_MAC, dst=RS_MAC, type=0x88CC) / Raw(b"lldp"),
        "echo request": ethernet() / request() / ICMP(type=8, id=3, seq=4) / Raw(b"ping"),
        "port unreachable": ethernet() / IP(src=DIP, dst=CLIENT)
        / ICMP(type=3, code=3) / request() / UDP(sport=5, dport=6) / Raw(b"hello"),
        "fragmentation needed": ethernet() / IP(src=DIP, dst=CLIENT)
        / ICMP(type=3, code=4, nexthopmtu=1480) / request(flags="DF", len=1500) / data(),
        "tunnel error": ethernet() / IP(src=RIP, dst=DIP)
        / ICMP(type=3, code=2) / IP(src=DIP, dst=RIP, proto=4) / inner,
        "redirect": ethernet() / IP(src=DIP, dst=CLIENT)
        / ICMP(type=5, code=1, gw=RIP) / request() / UDP(sport=5, dport=6),
        "time exceeded": ethernet() / IP(src=DIP, dst=CLIENT) / ICMP(type=11) / request() / syn(),
        "echo request 6": ethernet() / request6() / ICMPv6EchoRequest(id=3, seq=4, data=b"ping"),
        "nd solicitation": ethernet() / IPv6(src=CLIENT6, dst="ff02::1:ff00:100", hlim=255)
        / ICMPv6ND_NS(tgt=VIP6) / ICMPv6NDOptSrcLLAddr(lladdr=CLIENT_MAC),
        "nd advertisement": ethernet() / IPv6(src=VIP6, dst=CLIENT6, hlim=255)
        / ICMPv6ND_NA(tgt=VIP6, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=DIRECTOR_MAC),
        "nd probe": ethernet() / IPv6(src="::", dst="ff02::1:ff00:100", hlim=255)
        / ICMPv6ND_NS(tgt=VIP6),
        "router advertisement": ethernet() / IPv6(src="fe80::1", dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(),
        "packet too big": ethernet() / IPv6(src=DIP6, dst=CLIENT6)
        / ICMPv6PacketTooBig(mtu=1460) / request6() / data(),
        "port unreachable 6": ethernet() / IPv6(src=DIP6, dst=CLIENT6)
        / ICMPv6DestUnreach(code=4) / request6() / UDP(sport=5, dport=6),
        "first fragment": ethernet() / request(id=9, flags="MF") / datagram / Raw(b"x" * 1472),
        "last fragment": ethernet() / request(id=9, frag=185, proto=17) / Raw(b"x" * 528),
        "first fragment 6": ethernet() / request6()
        / IPv6ExtHdrFragment(id=77, m=1) / UDP(sport=5, dport=53, len=2008) / Raw(b"x" * 1000),
        "last fragment 6": ethernet() / request6()
        / IPv6ExtHdrFragment(id=77, offset=126, nh=17) / Raw(b"x" * 1000),
        "extension headers": ethernet() / request6()
        / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt() / data(),
        "ipip": tunnelled() / inner,
        "6in4": tunnelled(41) / inner6,
        "4in6": tunnelled6(4) / inner,
        "ip6ip6": tunnelled6() / inner6,
        "encapsulation limit": tunnelled6(60) / IPv6ExtHdrDestOpt(nh=41) / inner6,
        "gre": tunnelled(47) / GRE(proto=0x0800) / inner,
        "gre with all": tunnelled(47)
        / GRE(proto=0x0800, chksum_present=1, key_present=1, key=99, seqnum_present=1) / inner,
        "gre on ipv6": tunnelled6(47) / GRE(proto=0x86DD) / inner6,
        "gre bridged": tunnelled(47) / GRE(proto=0x6558) / ethernet(RS_MAC) / inner,
        "gre of something": tunnelled(47) / GRE(proto=0x88B5) / Raw(b"secret"),
        "nested": tunnelled() / IP(src=DIP, dst=RIP, proto=4) / inner,
    }  # fmt: skip
    return {name: bytes(packet) for name, packet in made.items()}


def gue(flags: int = 0, extra: bytes = b"", protocol: int = 4) -> bytes:
    """A GUE header (draft-ietf-intarea-gue-09): scapy and tshark know none."""
    return bytes((len(extra) // 4, protocol)) + flags.to_bytes(2, "big") + extra


def gue_frame(header: bytes, inner: Packet, port: int = 6080) -> bytes:
    """``inner`` behind a GUE header, from the director to a real server."""
    return bytes(tunnelled(17) / UDP(sport=40000, dport=port) / Raw(header + bytes(inner)))
