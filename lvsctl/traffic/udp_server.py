"""The real servers' answers over UDP: from the very address that each datagram came to."""

from __future__ import annotations

import contextlib
import socket
import struct

from lvsctl.traffic.connection import format_endpoint
from lvsctl.traffic.listening import IP_PKTINFO
from lvsctl.traffic.responses import ResponseBuilder

BATCH = 64
"""Datagrams answered before the other sockets get their turn."""

_IN_PKTINFO = struct.Struct("=i4s4s")  # ifindex, spec_dst, addr (ip(7))
_IN6_PKTINFO = struct.Struct("=16si")  # addr, ifindex (ipv6(7))


class UdpServer:
    """A real server's UDP socket, from ``listening``."""

    def __init__(self, sock: socket.socket, builder: ResponseBuilder) -> None:
        self.sock = sock
        self._builder = builder
        self._port = sock.getsockname()[1]

    def ready(self, _events: int = 0) -> None:
        """Answer the datagrams that are here. One whose answer the kernel refuses gets none."""
        for _ in range(BATCH):
            try:
                _, controls, _, peer = self.sock.recvmsg(0, 64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error for an earlier answer: each is reported once
            for level, kind, data in controls:
                address, control = _source(level, kind, data)
                if address:
                    local = (address, self._port, *peer[2:])
                    line = self._builder.line(format_endpoint(local), format_endpoint(peer))
                    # A full send buffer, no route, a firewall: UDP may lose an answer, and the
                    # client's own deadline tells.
                    with contextlib.suppress(OSError):
                        self.sock.sendmsg([line], [control], socket.MSG_DONTWAIT, peer)


def _source(level: int, kind: int, data: bytes) -> tuple[str, tuple[int, int, bytes]]:
    """The address that a datagram came to, and the control message to answer from it.

    The interface is left to the routes, but for link-local addresses, which need one.
    """
    if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
        _, _, address = _IN_PKTINFO.unpack(data[: _IN_PKTINFO.size])
        control = _IN_PKTINFO.pack(0, address, bytes(4))
        return socket.inet_ntop(socket.AF_INET, address), (level, kind, control)
    if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
        address, index = _IN6_PKTINFO.unpack(data[: _IN6_PKTINFO.size])
        local = address[0] == 0xFE and address[1] & 0xC0 == 0x80
        control = _IN6_PKTINFO.pack(address, index if local else 0)
        return socket.inet_ntop(socket.AF_INET6, address), (level, kind, control)
    return "", (0, 0, b"")
