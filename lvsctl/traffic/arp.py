"""Asking by ARP, aloud: a broadcast question that every neighbour hears (RFC 826).

The kernel asks by itself only when it wants to send, and often asks one neighbour
directly. A claim about who answers needs a question that everybody heard.
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


def ask_who_has(
    netns: str, device: str, sender: IPv4Address, wanted: IPv4Address, patience: float
) -> tuple[str, ...]:
    """Ask on ``device`` of ``netns`` who has ``wanted``; the MAC addresses that answered.

    Waits for the first answer, at most ``patience`` seconds, and takes those that came
    with it. Raises LabError where there is no such namespace, OSError for a device that
    is gone or down.
    """
    return run_inside(netns, lambda: _ask(device, sender, wanted, patience))


def _ask(device: str, sender: IPv4Address, wanted: IPv4Address, patience: float) -> tuple[str, ...]:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_PACKET, kind, socket.htons(_ETHERTYPE)) as sock:
        sock.bind((device, _ETHERTYPE))
        mac: bytes = sock.getsockname()[4]
        question = _PACKET.pack(
            *(1, 0x0800, 6, 4, _REQUEST), mac, sender.packed, bytes(6), wanted.packed
        )
        sock.send(_BROADCAST + mac + struct.pack("!H", _ETHERTYPE) + question)
        return _answers(sock, wanted, time.monotonic() + patience)


def _answers(sock: socket.socket, wanted: IPv4Address, deadline: float) -> tuple[str, ...]:
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
