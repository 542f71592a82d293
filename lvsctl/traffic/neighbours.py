"""Ask for an address by ARP or by neighbour discovery, so that every neighbour receives it.

The kernel asks only when it has a packet to send, and often by unicast. A claim about who replies
needs a request that every neighbour receives: a broadcast of ARP's (RFC 826), a solicitation to
the address's solicited-node multicast group in IPv6 (RFC 4861, section 7.2.2).
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from typing import NamedTuple

from lvsctl.kernel.netns import run_inside
from lvsctl.model.addresses import IPAddress

_ARP, _IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ASK, _REPLY = 1, 2
_ARP_PACKET = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET = 14
_ICMPV6, _HOP_LIMIT = 58, 255  # RFC 4861, section 7.1: any other hop limit came over a router
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_MAC, _TARGET_MAC = 1, 2
_IP_HEADER, _MESSAGE = 40, 24
_GROUP = int(IPv6Address("ff02::1:ff00:0"))


class _Protocol(NamedTuple):
    """How an address is asked for: the EtherType, the frame, and who a received frame is from."""

    ethertype: int
    frame: Callable[[bytes, IPAddress, IPAddress], bytes]
    answerer: Callable[[bytes, IPAddress], str]


def ask_neighbours(
    netns: str, device: str, sender: IPAddress, wanted: IPAddress, timeout: float
) -> tuple[str, ...]:
    """Ask for ``wanted`` on ``device`` of ``netns``; return the MAC addresses that replied.

    ``sender`` is the address of the device to ask from; in IPv6 it is asked from the link-local
    one, as a router does, so that no real server learns the node's other addresses. Waits for
    the first reply, at most ``timeout`` seconds, and includes those received with it. Raises
    LabError if the namespace does not exist, OSError if the device is missing or down.
    """
    return run_inside(netns, lambda: _ask(device, sender, wanted, timeout))


def _ask(device: str, sender: IPAddress, wanted: IPAddress, timeout: float) -> tuple[str, ...]:
    protocol = _PROTOCOLS[wanted.version]
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_PACKET, kind, socket.htons(protocol.ethertype)) as sock:
        sock.bind((device, protocol.ethertype))
        mac: bytes = sock.getsockname()[4]
        if wanted.version == 6:
            sender = _link_local(device) or sender
        sock.send(protocol.frame(mac, sender, wanted))
        return _receive_replies(sock, protocol, wanted, time.monotonic() + timeout)


def _link_local(device: str) -> IPv6Address | None:
    """Return the link-local address of a device of the calling thread's namespace."""
    for line in Path("/proc/thread-self/net/if_inet6").read_text(encoding="ascii").splitlines():
        digits, _, _, scope, _, name = line.split()
        if (name, int(scope, 16)) == (device, _LINK_SCOPE):
            return IPv6Address(int(digits, 16))
    return None


_LINK_SCOPE = 0x20  # IPV6_ADDR_LINKLOCAL (net/ipv6.h)


def _receive_replies(
    sock: socket.socket, protocol: _Protocol, wanted: IPAddress, deadline: float
) -> tuple[str, ...]:
    found: list[str] = []
    while not found:
        readable, _, _ = select.select([sock], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            break
        while frame := _receive(sock):
            if mac := protocol.answerer(frame, wanted):
                found.append(mac)
    return tuple(found)


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(2048)
    except BlockingIOError:
        return b""


def _arp_request(mac: bytes, sender: IPAddress, wanted: IPAddress) -> bytes:
    header = _BROADCAST + mac + struct.pack("!H", _ARP)
    return header + _ARP_PACKET.pack(
        *(1, 0x0800, 6, 4, _ASK), mac, sender.packed, bytes(6), wanted.packed
    )


def _arp_answerer(frame: bytes, wanted: IPAddress) -> str:
    if len(frame) < _ETHERNET + _ARP_PACKET.size:
        return ""
    *_, operation, mac, address, _, _ = _ARP_PACKET.unpack_from(frame, _ETHERNET)
    return mac.hex(":") if (operation, address) == (_REPLY, wanted.packed) else ""


def solicitation(mac: bytes, sender: IPAddress, wanted: IPAddress) -> bytes:
    """Return the frame of a neighbour solicitation (RFC 4861, section 4.3)."""
    group = IPv6Address(_GROUP | int(wanted) & 0xFFFFFF).packed
    option = bytes((_SOURCE_MAC, 1)) + mac
    message = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + wanted.packed + option
    addresses = sender.packed + group
    # RFC 4443, section 2.3: the sum covers a pseudo-header, too.
    total = _sum(addresses + struct.pack("!II", len(message), _ICMPV6) + message)
    message = message[:2] + struct.pack("!H", total ^ 0xFFFF) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, _HOP_LIMIT) + addresses
    # RFC 2464, section 7: the group's MAC address ends in its last four bytes.
    return b"\x33\x33" + group[-4:] + mac + struct.pack("!H", _IPV6) + header + message


def _sum(data: bytes) -> int:
    """Return the one's complement sum of 16-bit words (RFC 1071)."""
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _advertiser(frame: bytes, wanted: IPAddress) -> str:
    packet = frame[_ETHERNET:]
    message = packet[_IP_HEADER:]
    if len(message) < _MESSAGE or packet[6] != _ICMPV6 or message[0] != _ADVERTISEMENT:
        return ""
    if message[8:24] != wanted.packed:
        return ""
    option = message[_MESSAGE : _MESSAGE + 8]
    told = len(option) == 8 and option[0] == _TARGET_MAC
    return (option[2:] if told else frame[6:12]).hex(":")


_PROTOCOLS = {
    4: _Protocol(_ARP, _arp_request, _arp_answerer),
    6: _Protocol(_IPV6, solicitation, _advertiser),
}
