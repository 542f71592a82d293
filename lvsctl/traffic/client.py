"""Send requests through the VIP, as a client of the lab, and broadcast ARP requests.

Each request has a connection of its own, or for UDP a port of its own, since a connection is what
IPVS balances.

The kernel sends ARP requests (RFC 826) only when it has a packet to send, and often by unicast. A
claim about who replies needs a request that every neighbour receives.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from math import inf

from lvsctl.kernel.netns import enter, in_thread, run_inside
from lvsctl.model.addresses import IPAddress
from lvsctl.model.evidence import Exchange
from lvsctl.model.service import Protocol
from lvsctl.traffic.attempts import Attempts, Target, datagram, exchange_datagram, failed_exchange


def requests(
    netns: str,
    url_host: IPAddress,
    port: int,
    *,
    count: int,
    protocol: Protocol = Protocol.TCP,
    concurrency: int = 1,
    hold: bool = False,
    timeout: float = 5.0,
    connect: float = inf,
    path: str = "/",
) -> tuple[Exchange, ...]:
    """Send ``count`` requests from ``netns`` to ``url_host``:``port``; return their outcomes.

    ``concurrency`` requests run at the same time, and each has ``timeout`` seconds from opening
    its connection to the last byte of its answer; a connection that is not established within
    ``connect`` seconds is given up. With ``hold`` every connection stays open until
    the last request is over, for schedulers that count connections. A request without an answer is
    an ``Exchange`` with an error, never an exception.

    Runs in a thread of its own; the caller's stays in its namespace. Raises LabError if the
    namespace does not exist, HostError if open files or memory run out.
    """
    target = Target(url_host, port, protocol, timeout, path, keep=hold, connect=connect)
    with _attempted(netns, target, count, concurrency) as exchanges:
        return exchanges


@contextmanager
def held(
    netns: str,
    url_host: IPAddress,
    port: int,
    *,
    count: int,
    protocol: Protocol = Protocol.TCP,
    concurrency: int = 1,
    timeout: float = 5.0,
    connect: float = inf,
    path: str = "/",
    avoid: frozenset[int] = frozenset(),
) -> Iterator[tuple[Exchange, ...]]:
    """As ``requests`` with ``hold``: the answered connections stay open inside the ``with``.

    ``avoid`` are local ports that are not used.
    Once a request has timed out, the rest are sent at once.

    So the connection table can be read while they are established.
    """
    target = Target(
        url_host, port, protocol, timeout, path, keep=True, avoid=avoid, connect=connect
    )
    with _attempted(netns, target, count, concurrency) as exchanges:
        yield exchanges


@contextmanager
def _attempted(
    netns: str, target: Target, count: int, concurrency: int
) -> Iterator[tuple[Exchange, ...]]:
    """Complete all requests; close the connections that were kept open on leaving the context."""
    if concurrency < 1 or count < 0:
        raise ValueError(f"concurrency {concurrency}, count {count}")
    stop = os.eventfd(0)
    attempts = Attempts(target, count, concurrency, stop)
    over = threading.Event()
    over.set()

    def run() -> None:
        try:
            with enter(netns):
                attempts.run()
        finally:
            over.set()

    try:
        attempts.make_room()
        over.clear()
        in_thread(run)
        yield attempts.exchanges
    except BaseException:
        # Interrupted while the thread is still running: end it before its sockets are closed.
        os.eventfd_write(stop, 1)
        over.wait(1.0)
        raise
    finally:
        attempts.close()
        os.close(stop)


def flow(
    netns: str, host: IPAddress, port: int, *, count: int, timeout: float
) -> tuple[Exchange, ...]:
    """Send ``count`` requests over UDP from one port, one after the other, as one flow.

    Ends early after the second one without an answer within ``timeout`` seconds. Raises as
    ``requests``.
    """
    return run_inside(netns, lambda: _send_flow(host, port, count, timeout))


_UNANSWERED = 2
"""Requests of a flow without an answer after which no more are sent."""


def _send_flow(host: IPAddress, port: int, count: int, timeout: float) -> tuple[Exchange, ...]:
    family = socket.AF_INET6 if host.version == 6 else socket.AF_INET
    found: list[Exchange] = []
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect((str(host), port))
        except OSError as error:
            return (failed_exchange(error),)
        while len(found) < count and sum(not one.answered for one in found) < _UNANSWERED:
            found.append(exchange_datagram(sock, datagram(port, f"/{len(found)}")))
    return tuple(found)


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
