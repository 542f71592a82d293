"""Send broadcast ARP requests and collect the replies (RFC 826).

The kernel sends ARP requests only when it has a packet to send, and often by unicast. A claim
about who answers needs a request that every neighbour receives.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from ipaddress import IPv4Address

from lvsctl.kernel.netns import run_inside

_ETHERTYPE = 0x0806
_BROADCAST = b"\xff" * 6
_REQUEST, _REPLY = 1, 2
_PACKET = struct.Struct("!HHBBH6s4s6s4s")


def arp_probe(
    netns: str, device: str, sender: IPv4Address, wanted: IPv4Address, timeout: float
) -> tuple[str, ...]:
    """Request ``wanted`` by ARP on ``device`` of ``netns``; returns the MAC addresses that replied.

    Waits for the first reply, at most ``timeout`` seconds, and includes those received with it.
    Raises LabError if the namespace does not exist, OSError if the device is missing or down.
    """
    return run_inside(netns, lambda: _send_request(device, sender, wanted, timeout))


def _send_request(
    device: str, sender: IPv4Address, wanted: IPv4Address, timeout: float
) -> tuple[str, ...]:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_PACKET, kind, socket.htons(_ETHERTYPE)) as sock:
        sock.bind((device, _ETHERTYPE))
        mac: bytes = sock.getsockname()[4]
        request = _PACKET.pack(
            *(1, 0x0800, 6, 4, _REQUEST), mac, sender.packed, bytes(6), wanted.packed
        )
        sock.send(_BROADCAST + mac + struct.pack("!H", _ETHERTYPE) + request)
        return _receive_replies(sock, wanted, time.monotonic() + timeout)


def _receive_replies(sock: socket.socket, wanted: IPv4Address, deadline: float) -> tuple[str, ...]:
    found: list[str] = []
    while not found:
        readable, _, _ = select.select([sock], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            break
        while frame := _receive(sock):
            if len(frame) < 14 + _PACKET.size:
                continue
            *_, operation, mac, address, _, _ = _PACKET.unpack_from(frame, 14)
            if operation == _REPLY and address == wanted.packed:
                found.append(mac.hex(":"))
    return tuple(found)


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(2048)
    except BlockingIOError:
        return b""
