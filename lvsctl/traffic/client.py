"""Send requests through the VIP, as a client of the lab.

Each request has a connection of its own, or for UDP a port of its own, since a connection is what
IPVS balances.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from lvsctl.kernel.netns import enter, in_thread, run_inside
from lvsctl.model.addresses import Endpoint, IPAddress
from lvsctl.model.evidence import Exchange
from lvsctl.model.service import Protocol
from lvsctl.traffic.attempts import (
    ANY,
    Attempts,
    Target,
    bind_elsewhere,
    datagram,
    exchange_datagram,
    failed_exchange,
    new_call,
    sip_request,
)
from lvsctl.traffic.replies import parse_address


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
    avoid: frozenset[int] = frozenset(),
    call: str | None = None,
    burst: int = ANY,
) -> tuple[Exchange, ...]:
    """Send ``count`` requests from ``netns`` to ``url_host``:``port``; return their outcomes.

    ``concurrency`` requests run at the same time, and each has ``timeout`` seconds from opening
    its connection to the last byte of its answer; a connection that is not established within
    ``connect`` seconds is given up. With ``hold`` every connection stays open until
    the last request is over, for schedulers that count connections. Once a request hangs, ``burst``
    others run at the same time: see ``Target``. Ports in ``avoid`` are not
    used. With ``call`` they are requests of SIP with that Call-ID (empty: each
    with its own). A request without an answer is an ``Exchange`` with an error, never an exception.

    Runs in a thread of its own; the caller's stays in its namespace. Raises LabError if the
    namespace does not exist, HostError if open files or memory run out.
    """
    target = Target(
        url_host, port, protocol, timeout, path,
        keep=hold, avoid=avoid, burst=burst, connect=connect, call=call,
    )  # fmt: skip
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
    call: str | None = None,
    burst: int = ANY,
) -> Iterator[tuple[Exchange, ...]]:
    """As ``requests`` with ``hold``: the answered connections stay open inside the ``with``.

    So the connection table can be read while they are established.
    """
    target = Target(
        url_host, port, protocol, timeout, path,
        keep=True, avoid=avoid, burst=burst, connect=connect, call=call,
    )  # fmt: skip
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
    netns: str,
    host: IPAddress,
    port: int,
    *,
    count: int,
    timeout: float,
    avoid: frozenset[int] = frozenset(),
    call: bool = False,
) -> tuple[Exchange, ...]:
    """Send ``count`` requests over UDP from one port, one after the other, as one flow.

    ``avoid`` are ports not to send from: see ``Target``. With ``call`` they are the requests of
    one SIP call.
    Ends early after the second one without an answer within ``timeout`` seconds. Raises as
    ``requests``.
    """
    to = Endpoint(host, port)
    return run_inside(netns, lambda: _send_flow(to, count, timeout, avoid, call=call))


_UNANSWERED = 2
"""Requests of a flow without an answer after which no more are sent."""


def _send_flow(
    to: Endpoint, count: int, timeout: float, avoid: frozenset[int], *, call: bool
) -> tuple[Exchange, ...]:
    family = socket.AF_INET6 if to.address.version == 6 else socket.AF_INET
    call_id = new_call()
    found: list[Exchange] = []
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        if avoid:
            bind_elsewhere(sock, avoid)
        try:
            sock.connect((str(to.address), to.port))
        except OSError as error:
            return (failed_exchange(error),)
        while len(found) < count and sum(not one.answered for one in found) < _UNANSWERED:
            request = datagram(to.port, f"/{len(found)}")
            if call:
                address, port, *_ = sock.getsockname()
                local = Endpoint(parse_address(address), port)
                request = sip_request(to, local, call_id, len(found) + 1)
            found.append(exchange_datagram(sock, request))
    return tuple(found)
