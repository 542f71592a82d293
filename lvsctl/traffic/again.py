"""Ask several times over the same connections, or from the same UDP ports.

Between two rounds something of the network is changed: so it is seen what that does to flows
that exist already.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from lvsctl.kernel.netns import run_inside
from lvsctl.model.addresses import Endpoint
from lvsctl.model.evidence import Exchange, Failure
from lvsctl.model.service import Protocol, VipPort
from lvsctl.traffic.attempts import RECEIVE_BYTES, Target, failed_exchange
from lvsctl.traffic.http import BadRequest
from lvsctl.traffic.replies import ReplyReader, ServerIdentity, parse_address, parse_datagram


@dataclass(slots=True)
class _Flow:
    sock: socket.socket
    local: Endpoint
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def goes_on(self) -> bool:
        """Whether every request so far was answered."""
        return all(one.answered for one in self.exchanges)


class Flows:
    """Connections of one client to one service, each with what came of its requests so far."""

    def __init__(self, endpoint: VipPort, timeout: float) -> None:
        self._target = Target(
            endpoint.vip, endpoint.port, endpoint.protocol, timeout, "/", keep=True
        )
        self._flows: list[_Flow] = []

    @property
    def exchanges(self) -> tuple[tuple[Exchange, ...], ...]:
        """The requests of each connection, those that were answered and the first that was not."""
        return tuple(tuple(one.exchanges) for one in self._flows)

    def open(self, count: int) -> None:
        """Open ``count`` connections; those that are not established are left out."""
        target = self._target
        family = socket.AF_INET6 if target.host.version == 6 else socket.AF_INET
        datagrams = target.protocol is Protocol.UDP
        for _ in range(count):
            sock = socket.socket(family, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
            sock.settimeout(target.timeout)
            try:
                sock.connect((str(target.host), target.port))
            except OSError as error:
                sock.close()
                if isinstance(error, TimeoutError):
                    return  # others would wait as long
                continue
            address, port, *_ = sock.getsockname()
            local = Endpoint(parse_address(address.partition("%")[0]), port)
            self._flows.append(_Flow(sock, local))

    def ask(self, count: int | None = None) -> None:
        """Send a request over each connection that goes on, all at once, and wait for replies.

        Over the first ``count`` connections only, if it is given.
        """
        flows = [one for one in self._flows[:count] if one.goes_on]
        sent: list[tuple[_Flow, float]] = []
        deadline = time.monotonic() + self._target.timeout
        for flow in flows:
            when = time.time()
            try:
                flow.sock.sendall(self._target.request(flow.local))
            except OSError as error:
                flow.exchanges.append(_failed(flow, when, error))
            else:
                sent.append((flow, when))
        for flow, when in sent:
            flow.sock.settimeout(max(0.001, deadline - time.monotonic()))
            flow.exchanges.append(self._reply(flow, when))

    def _reply(self, flow: _Flow, when: float) -> Exchange:
        try:
            status, said = self._read(flow.sock)
        except OSError as error:
            return _failed(flow, when, error)
        except BadRequest:
            return _failed(flow, when, OSError(), Failure.MALFORMED)
        if status < 0:
            return _failed(flow, when, OSError(), Failure.CLOSED)
        return Exchange(
            sent_at=when,
            local=flow.local,
            status=status,
            node=said.node,
            local_seen=said.local,
            peer_seen=said.peer,
            seconds=time.time() - when,
        )

    def _read(self, sock: socket.socket) -> tuple[int, ServerIdentity]:
        """Read a reply: HTTP's status (-1: the connection was closed before) and who it is from."""
        if self._target.protocol is Protocol.UDP:
            return 0, parse_datagram(sock.recv(RECEIVE_BYTES))
        reader = ReplyReader()
        while data := sock.recv(RECEIVE_BYTES):
            if reader.feed(data):
                return reader.status, reader.said
        return (reader.status, reader.said) if reader.end() else (-1, ServerIdentity())

    def close(self) -> None:
        """Close every connection."""
        for one in self._flows:
            with suppress(OSError):
                one.sock.close()


def _failed(flow: _Flow, when: float, error: OSError, why: str = "") -> Exchange:
    lost = failed_exchange(error)
    return Exchange(
        sent_at=when,
        local=flow.local,
        status=0,
        node="",
        local_seen=None,
        peer_seen=None,
        seconds=time.time() - when,
        error=why or lost.error,
    )


@contextmanager
def opened(netns: str, endpoint: VipPort, count: int, timeout: float) -> Iterator[Flows]:
    """Open ``count`` flows from ``netns`` to a service, and close them at the end.

    ``timeout`` in seconds for a connection, and for the replies of a round of requests. Raises
    LabError if the namespace does not exist.
    """
    flows = Flows(endpoint, timeout)
    with ExitStack() as held:
        held.callback(flows.close)
        run_inside(netns, lambda: flows.open(count))
        yield flows
