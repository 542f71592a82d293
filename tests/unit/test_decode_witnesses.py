"""Our decoding held against tshark's and scapy's, on the same frames."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from lvsctl.capture.decode import decode
from lvsctl.capture.pcapng import PcapngWriter
from lvsctl.model.frame import Direction, Frame, LinkType, RawFrame, Tap
from lvsctl.model.packet import Icmp, Ip, Packet, Sctp, Tcp, Udp
from tests.unit.decode_samples import samples
from tests.witness import witness

NAMES = tuple(samples())
FIELDS = (
    "eth.src", "eth.dst", "vlan.id",
    "arp.opcode", "arp.src.hw_mac", "arp.src.proto_ipv4", "arp.dst.hw_mac", "arp.dst.proto_ipv4",
    "ip.src", "ip.dst", "ip.ttl", "ip.proto", "ip.id", "ip.len", "ip.flags.df", "ip.flags.mf",
    "ip.checksum.status",
    "ipv6.src", "ipv6.dst", "ipv6.hlim", "ipv6.flow", "ipv6.fraghdr.offset", "ipv6.fraghdr.more",
    "gre.key", "gre.proto",
    "tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags",
    "tcp.window_size_value", "tcp.options.mss_val", "tcp.payload",
    "udp.srcport", "udp.dstport", "udp.payload",
    "sctp.srcport", "sctp.dstport", "sctp.verification_tag",
    "icmp.type", "icmp.code", "icmp.mtu", "icmp.redir_gw",
    "icmpv6.type", "icmpv6.code", "icmpv6.mtu",
    "icmpv6.nd.ns.target_address", "icmpv6.nd.na.target_address", "icmpv6.opt.linkaddr",
)  # fmt: skip


def decoded(data: bytes, link: LinkType = LinkType.ETHERNET) -> Frame:
    return decode(RawFrame(0, Tap("director", "lan"), Direction.IN, link, len(data), data))


def tshark(*arguments: str) -> str:
    """What tshark prints."""
    done = subprocess.run(
        [witness("tshark"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def witnessed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What tshark says of each sample: its fields, several values with commas between."""
    file = tmp_path_factory.mktemp("decode") / "samples.pcapng"
    with file.open("wb") as stream:
        writer = PcapngWriter(stream)
        for data in samples().values():
            writer.write(decoded(data).raw)
    options = ["ip.defragment:FALSE", "ipv6.defragment:FALSE", "ip.check_checksum:TRUE"]
    words = [word for option in options for word in ("-o", option)]
    words += ["-T", "fields", "-E", "separator=|"]
    words += [word for field in FIELDS for word in ("-e", field)]
    lines = tshark("-n", "-r", str(file), *words).splitlines()
    assert len(lines) == len(NAMES)
    return {
        name: dict(zip(FIELDS, line.split("|"), strict=True))
        for name, line in zip(NAMES, lines, strict=True)
    }


def packets(packet: Packet) -> Iterator[Packet]:
    """A packet and the one that its ICMP message quotes: tshark shows both."""
    yield packet
    if isinstance(packet.transport, Icmp) and packet.transport.quoted is not None:
        yield from packets(packet.transport.quoted)


def ip_said(headers: list[Ip]) -> dict[str, str]:
    v4 = [h for h in headers if h.version == 4]
    v6 = [h for h in headers if h.version == 6]
    said = {
        "ip.src": [str(h.src) for h in v4],
        "ip.dst": [str(h.dst) for h in v4],
        "ip.ttl": [str(h.ttl) for h in v4],
        "ip.proto": [str(h.protocol) for h in v4],
        "ip.id": [f"0x{h.identification:04x}" for h in v4],
        "ip.len": [str(h.total_length) for h in v4],
        "ip.flags.df": [str(int(h.df)) for h in v4],
        "ip.flags.mf": [str(int(h.mf)) for h in v4],
        "ip.checksum.status": [str(int(h.checksum_ok)) for h in v4],
        "ipv6.src": [str(h.src) for h in v6],
        "ipv6.dst": [str(h.dst) for h in v6],
        "ipv6.hlim": [str(h.ttl) for h in v6],
        "ipv6.flow": [hex(h.flow_label) for h in v6],
    }
    return {field: ",".join(values) for field, values in said.items()}


def transport_said(all_packets: list[Packet]) -> dict[str, str]:
    said: dict[str, list[str]] = {}
    for packet in all_packets:
        for field, value in transport_fields(packet).items():
            if value not in ("", None):
                said.setdefault(field, []).append(str(value))
    return {field: ",".join(values) for field, values in said.items()}


def transport_fields(packet: Packet) -> dict[str, object]:
    match packet.transport:
        case Tcp() as tcp:
            return {
                "tcp.srcport": tcp.sport,
                "tcp.dstport": tcp.dport,
                "tcp.seq_raw": tcp.seq,
                "tcp.ack_raw": tcp.ack,
                "tcp.flags": int(tcp.flags),
                "tcp.window_size_value": tcp.window,
                "tcp.options.mss_val": tcp.mss or "",
                "tcp.payload": packet.payload.hex(),
            }
        case Udp(sport=sport, dport=dport):
            payload = packet.payload.hex()
            return {"udp.srcport": sport, "udp.dstport": dport, "udp.payload": payload}
        case Sctp(sport=sport, dport=dport, tag=tag):
            return {"sctp.srcport": sport, "sctp.dstport": dport, "sctp.verification_tag": tag}
        case Icmp() as icmp:
            return icmp_fields(icmp)
    return {}


def icmp_fields(icmp: Icmp) -> dict[str, object]:
    name = "icmp" if icmp.version == 4 else "icmpv6"
    said: dict[str, object] = {
        f"{name}.type": icmp.type,
        f"{name}.code": icmp.code,
        f"{name}.mtu": icmp.mtu or "",
    }
    if icmp.version == 4:
        said["icmp.redir_gw"] = icmp.gateway
    if icmp.nd is not None:
        kind = "ns" if icmp.nd.is_solicit else "na"
        said[f"icmpv6.nd.{kind}.target_address"] = icmp.nd.target
        said["icmpv6.opt.linkaddr"] = icmp.nd.mac
    return said


def said_by_us(frame: Frame) -> dict[str, str]:
    """All that we know of a frame, in tshark's words; what is missing is empty there."""
    ethernets = [frame.ethernet] if frame.ethernet else []
    said = {
        "eth.src": ",".join(e.src for e in ethernets),
        "eth.dst": ",".join(e.dst for e in ethernets),
        "vlan.id": ",".join(str(vlan) for e in ethernets for vlan in e.vlans),
    }
    if arp := frame.arp:
        said |= {
            "arp.opcode": str(arp.op),
            "arp.src.hw_mac": arp.sender_mac,
            "arp.src.proto_ipv4": str(arp.sender_ip),
            "arp.dst.hw_mac": arp.target_mac,
            "arp.dst.proto_ipv4": str(arp.target_ip),
        }
    all_packets = list(packets(frame.packet))
    said |= ip_said([ip for packet in all_packets for ip in packet.ips])
    said |= transport_said(all_packets)
    tunnels = [tunnel for packet in all_packets for tunnel in packet.tunnels]
    said["gre.proto"] = ",".join(f"0x{t.protocol:04x}" for t in tunnels)
    said["gre.key"] = ",".join(f"0x{getattr(t, 'key', None) or 0:08x}" for t in tunnels
                               if getattr(t, "key", None) is not None)  # fmt: skip
    for ip in frame.ips:
        if ip.version == 6 and ip.is_fragment:
            said["ipv6.fraghdr.offset"] = str(ip.fragment_offset // 8)
            said["ipv6.fraghdr.more"] = str(int(ip.mf))
    return said


def plain(values: str) -> list[str | int]:
    """Numbers as numbers: versions of tshark write them in different ways."""
    return [_number(value) for value in values.split(",") if value]


def _number(value: str) -> str | int:
    try:
        return {"True": 1, "False": 0}[value] if value in ("True", "False") else int(value, 0)
    except ValueError:
        return value


QUOTED = {"tcp.seq_raw", "tcp.ack_raw", "tcp.payload"}
"""What tshark does not tell under these names of a TCP segment that ICMP quotes."""

DIFFERENT = {
    "fragmentation needed": QUOTED,
    "time exceeded": QUOTED,
    "gre bridged": {"eth.src", "eth.dst"},  # we tell the outer Ethernet header only
}


@pytest.mark.parametrize("name", NAMES)
def test_tshark_says_the_same(name: str, witnessed: dict[str, dict[str, str]]) -> None:
    ours = said_by_us(decoded(samples()[name]))

    for field in set(FIELDS) - DIFFERENT.get(name, set()):
        assert plain(ours.get(field, "")) == plain(witnessed[name][field]), field


@pytest.mark.parametrize("name", NAMES)
def test_scapy_says_the_same(name: str) -> None:
    data = samples()[name]
    packet: Any = Ether(data)
    frame = decoded(data)

    assert frame.ethernet is not None
    assert (frame.ethernet.src, frame.ethernet.dst) == (packet.src, packet.dst)
    if ARP in packet:
        assert frame.arp is not None
        assert str(frame.arp.sender_ip) == packet[ARP].psrc
        assert str(frame.arp.target_ip) == packet[ARP].pdst
    headers = [layer for layer in layers(packet) if isinstance(layer, IP | IPv6)]
    ours = [ip for one in packets(frame.packet) for ip in one.ips]
    assert [ip_address(h.dst) for h in headers] == [ip.dst for ip in ours]
    assert [ip_address(h.src) for h in headers] == [ip.src for ip in ours]
    for kind, header in ((TCP, frame.tcp), (UDP, frame.udp)):
        if kind in packet and not frame.icmp:
            assert header is not None
            assert (header.sport, header.dport) == (packet[kind].sport, packet[kind].dport)
            assert frame.payload == bytes(packet[kind].payload)
    if ICMP in packet:
        assert frame.icmp is not None
        assert (frame.icmp.type, frame.icmp.code) == (packet[ICMP].type, packet[ICMP].code)
    if Raw in packet and frame.inner and frame.inner.fragment_offset:
        assert frame.payload == bytes(packet[Raw])


def layers(packet: Any) -> Iterator[Any]:
    """scapy's layers, those that an ICMP message quotes included."""
    while packet:
        yield packet
        packet = packet.payload


def test_tshark_opens_what_we_write(tmp_path: Path) -> None:
    file = tmp_path / "two.pcapng"
    lan, tunl0 = Tap("director", "lan"), Tap("rs1", "tunl0")
    plain = samples()["tcp data"]
    moment = 1_700_000_000_123_456_789
    with file.open("wb") as stream:
        writer = PcapngWriter(stream, {Tap("client", "lan"): LinkType.ETHERNET})
        writer.write(RawFrame(moment, lan, Direction.OUT, LinkType.ETHERNET, len(plain), plain))
        inner = RawFrame(moment + 1, tunl0, Direction.IN, LinkType.RAW, 900, plain[14:80], True)
        writer.write(inner, "the request, out of its tunnel")
        writer.finish({"director": 3, "rs1": 0})

    fields = ["frame.interface_name", "frame.time_epoch", "frame.len", "frame.cap_len",
              "frame.packet_flags_direction", "frame.comment", "ip.dst"]  # fmt: skip
    words = [word for field in fields for word in ("-e", field)]
    out = tshark("-n", "-r", str(file), "-T", "fields", "-E", "separator=|", *words)

    size = len(plain)
    assert [line.split("|") for line in out.splitlines()] == [
        ["director:lan", "1700000000.123456789", str(size), str(size), "0x00000002", "",
         "10.10.0.100"],
        ["rs1:tunl0", "1700000000.123456790", "900", "66", "0x00000001",
         "the request, out of its tunnel", "10.10.0.100"],
    ]  # fmt: skip
