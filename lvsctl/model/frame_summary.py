"""One line about a frame, for people who read tcpdump."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lvsctl.model.packet import GRE, IPIP, IPV6, SCTP, TCP, UDP, Gre, Gue, Icmp, Ip, Packet, Tcp

if TYPE_CHECKING:
    from lvsctl.model.frame import Arp, Frame

_PROTOCOL_NAMES = {
    IPIP: "IPIP", TCP: "TCP", UDP: "UDP", IPV6: "IPv6", GRE: "GRE", 50: "ESP", 112: "VRRP",
    SCTP: "SCTP",
}  # fmt: skip
_SCTP_CHUNKS = {
    0: "DATA", 1: "INIT", 2: "INIT-ACK", 3: "SACK", 4: "HEARTBEAT", 5: "HEARTBEAT-ACK",
    6: "ABORT", 7: "SHUTDOWN", 8: "SHUTDOWN-ACK", 9: "ERROR", 10: "COOKIE-ECHO",
    11: "COOKIE-ACK", 14: "SHUTDOWN-COMPLETE",
}  # fmt: skip


def summary_of(frame: Frame) -> str:
    """``10.10.0.10:45678 → 10.10.0.100:80 TCP SYN ttl 64 | 02:00:… → 02:00:…``.

    What is encapsulated stands in brackets behind the header that carries it.
    """
    ethernet = frame.ethernet
    if frame.arp is not None:
        text = _arp(frame.arp)
    elif frame.ips:
        text = packet_summary(frame.packet)
    elif ethernet is None:
        text = f"{frame.length} bytes"
    else:
        text = f"type {ethernet.type:#06x}" if ethernet.type >= 0x600 else "802.3"
    if frame.malformed and not frame.ips:
        text += f" (malformed: {frame.malformed})"
    return f"{text} | {ethernet}" if ethernet is not None else text


def packet_summary(packet: Packet) -> str:
    """The same of a packet, with no MAC addresses: of one quoted by ICMP, for example."""
    if not packet.ips:
        return f"not IP (malformed: {packet.malformed})" if packet.malformed else "not IP"
    *carriers, inner = packet.ips
    text = ""
    for index, carrier in enumerate(carriers):
        text += f"{carrier} {_wrapping(packet, index)}["
    text += _innermost(packet, inner) + "]" * len(carriers)
    if packet.malformed:
        text += f" (malformed: {packet.malformed})"
    return text


def _wrapping(packet: Packet, index: int) -> str:
    words = ""
    for tunnel in packet.tunnels:
        if tunnel.carrier != index:
            continue
        if isinstance(tunnel, Gue):
            words += f"GUE {tunnel.sport} → {tunnel.dport} "
        else:
            words += "GRE " if tunnel.key is None else f"GRE key {tunnel.key} "
    protocol = packet.ips[index].protocol
    return words or f"{_PROTOCOL_NAMES.get(protocol, f'protocol {protocol}')} "


def _innermost(packet: Packet, ip: Ip) -> str:
    transport, flow = packet.transport, packet.flow
    tail = f"ttl {ip.ttl}" + _fragment(ip)
    if isinstance(transport, Icmp):
        kind = "ICMP" if transport.version == 4 else "ICMPv6"
        return f"{ip.src} → {ip.dst} {kind} {_icmp(transport)} {tail}"
    if flow is None or transport is None:
        protocol = _PROTOCOL_NAMES.get(ip.protocol, f"protocol {ip.protocol}")
        if any(isinstance(t, Gre) for t in packet.tunnels):
            protocol = f"GRE type {packet.tunnels[-1].protocol:#06x}"
        return f"{ip.src} → {ip.dst} {protocol} {tail}"
    if isinstance(transport, Tcp):
        what = f"TCP {transport.flags}"
    else:
        what = _PROTOCOL_NAMES[flow.protocol]
        chunk = getattr(transport, "chunk", -1)
        what += f" {_SCTP_CHUNKS.get(chunk, f'chunk {chunk}')}" if chunk >= 0 else ""
    size = f" {len(packet.payload)} bytes" if packet.payload and flow.protocol != SCTP else ""
    return f"{flow} {what}{size} {tail}"


def _fragment(ip: Ip) -> str:
    if not ip.is_fragment:
        return ""
    return f" fragment {ip.identification:#x} at {ip.fragment_offset}{'+' if ip.mf else ''}"


def _icmp(message: Icmp) -> str:
    text = message.name
    if message.nd is not None:
        nd = message.nd
        text += f" who has {nd.target}" if nd.is_solicit else f" {nd.target}"
        text += f" is at {nd.mac}" if nd.mac and not nd.is_solicit else ""
    if message.mtu:
        text += f" mtu {message.mtu}"
    if message.gateway is not None:
        text += f" to {message.gateway}"
    quoted = message.quoted
    if quoted is not None and len(quoted.ips) > 1:
        text += f" about ({packet_summary(quoted)})"
    elif quoted is not None and quoted.ips:
        text += f" about {quoted.flow or quoted.ips[0]}"
    return text


def _arp(arp: Arp) -> str:
    if arp.is_request:
        if arp.is_gratuitous:
            return f"ARP announces {arp.sender_ip} at {arp.sender_mac}"
        return f"ARP who has {arp.target_ip}? tell {arp.sender_ip}"
    if arp.is_reply:
        return f"ARP {arp.sender_ip} is at {arp.sender_mac}"
    return f"ARP op {arp.op}"
