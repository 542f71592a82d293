"""The evidence of a lab: requests as clients observed them, and everything captured meanwhile.

A model type, so that every verdict can be recomputed from a saved report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lvsctl.model.addresses import Endpoint, IPAddress
from lvsctl.model.frame import Frame, Tap
from lvsctl.model.lab import Lab
from lvsctl.model.packet_filter import FilterRule
from lvsctl.model.service import GUE_PORT, VipPort, VirtualService
from lvsctl.model.state import Connection, Dropped, NodeState, ServiceState

LARGE = 4000
"""Bytes of a request that needs several full-sized segments (of 1460 bytes on Ethernet)."""


class Failure(StrEnum):
    """Why a request was not answered (``Exchange.error``)."""

    NONE = ""
    TIMED_OUT = "timed out"
    REFUSED = "connection refused"
    """A RST to the SYN, or an ICMP port unreachable (the director without a usable real server)."""
    RESET = "reset"
    NO_ROUTE = "no route"
    PROHIBITED = "prohibited"
    """Rejected by a rule or a route (ICMP administratively prohibited)."""
    NO_PORT = "no local port left"
    CLOSED = "closed early"
    """The connection was closed before the reply was complete."""
    MALFORMED = "malformed answer"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, sent over a connection (or, for UDP, from a port) of its own.

    ``sent_at`` is when the connection was opened: seconds since the epoch by
    CLOCK_REALTIME, the clock of the captured frames, so that the two can be laid
    side by side. ``seconds`` is how long it took from there to the last byte of
    the answer, or to the failure, by CLOCK_MONOTONIC, which never jumps.

    ``local`` is the client's own end; None where it never got one (no route).
    ``status`` is HTTP's; 0 where there is none (UDP, or no answer).
    ``node`` is the real server that answered, ``local_seen`` and ``peer_seen`` the
    two ends of the connection as that real server sees them; '' and None where the
    answer does not say (the user's own server) or did not come.
    ``error`` is '' for an answer; otherwise one of ``Failure``'s words, or the
    kernel's own where none fits.
    """

    sent_at: float
    local: Endpoint | None
    status: int
    node: str
    local_seen: Endpoint | None
    peer_seen: Endpoint | None
    seconds: float
    error: str = Failure.NONE

    @property
    def answered(self) -> bool:
        """Whether a complete reply was received."""
        return not self.error

    @property
    def server_error(self) -> bool:
        """Whether the reply is a server's error (HTTP 5xx)."""
        return self.answered and self.status >= 500


@dataclass(frozen=True, slots=True)
class Probe:
    """Requests of another client of the service, sent after those that counters are compared with.

    ``client`` is the node that sent them.
    """

    client: str
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """Requests of a run's client to another port or VIP of the same virtual service."""

    endpoint: VipPort
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True, slots=True)
class DirectorTable:
    """What one of several directors that handle requests at the same time had (``ha: ecmp``).

    ``before`` and ``after`` are as in ``Run``, ``connections`` its own connection table;
    ``began`` and ``ended`` are when its own counters were read.
    """

    director: str
    before: ServiceState | None
    after: ServiceState | None
    connections: tuple[Connection, ...]
    began: int = 0
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Rerouted:
    """Requests over one connection, or of one UDP flow, that routers sent to several directors.

    Between two of ``exchanges`` routers began to hash what they send over several next hops
    otherwise, or as usual again. There are no more after one that was not answered.
    """

    exchanges: tuple[Exchange, ...]

    @property
    def local(self) -> Endpoint | None:
        """The client's end."""
        return self.exchanges[0].local


@dataclass(frozen=True, slots=True)
class Run:
    """One virtual service under load from one client.

    ``exchanges`` came one after the other, every connection kept open until the last
    was over (UDP has none to keep). ``before`` and ``after`` are the director's IPVS
    table around them, None where the service was not in it; ``connections`` its
    connection table while they were open. ``began`` and ``ended`` are when the counters
    were read, in nanoseconds since the epoch, as frames' times are.

    Afterwards ``larges`` are sent, requests of several full-sized segments, until every real
    server that the scheduler chooses has had one; ``large`` is the first of them that failed, or
    else the first (None: not sent, for UDP). ``others`` are requests of the service's other
    clients, ``joined`` those of the same client to its other ports and VIPs. ``slow`` are requests
    like those that timed out, which were waited for longer.
    ``connections`` contains the entries of all of these.

    Where several directors handle requests at the same time, ``before``, ``after`` and
    ``connections`` are those of all of them, added up, and ``tables`` each one's own.
    """

    service: VirtualService
    client: str
    exchanges: tuple[Exchange, ...]
    before: ServiceState | None
    after: ServiceState | None
    connections: tuple[Connection, ...]
    large: Exchange | None = None
    began: int = 0
    ended: int = 0
    larges: tuple[Exchange, ...] = ()
    others: tuple[Probe, ...] = ()
    slow: tuple[Exchange, ...] = ()
    joined: tuple[Joined, ...] = ()
    flow: tuple[Exchange, ...] = ()
    """Requests over UDP from one port, one after the other: all but the first belong to a flow
    that exists already. Empty for other protocols."""
    calls: tuple[Exchange, ...] = ()
    """Requests of one SIP call, with the same Call-ID, each from another port. Empty where the
    service's persistence does not look at it."""
    tables: tuple[DirectorTable, ...] = ()
    """Empty where one director handles requests."""
    rerouted: tuple[Rerouted, ...] = ()
    """Connections that were asked again by another director; empty where there is one."""

    @property
    def endpoint(self) -> VipPort:
        """The protocol, VIP and port that the requests were sent to."""
        return self.service.endpoint

    def counts(self, frame: Frame) -> bool:
        """Whether a frame was captured at a director while its counters were compared."""
        for one in self.tables:
            if one.director == frame.tap.node and one.ended:
                return one.began <= frame.time <= one.ended
        return self.began <= frame.time <= self.ended

    @property
    def answered(self) -> tuple[Exchange, ...]:
        """The requests that were answered completely."""
        return tuple(exchange for exchange in self.exchanges if exchange.answered)

    @property
    def every_large(self) -> tuple[Exchange, ...]:
        """Every large request, also of reports that contain only one."""
        return self.larges or ((self.large,) if self.large is not None else ())

    @property
    def all_exchanges(self) -> tuple[Exchange, ...]:
        """Every request of every client, ordinary and large."""
        probed = (exchange for probe in self.others for exchange in probe.exchanges)
        joined = (exchange for one in self.joined for exchange in one.exchanges)
        first = (one.exchanges[0] for one in self.rerouted)
        more = (*self.slow, *self.calls, *first, *self.flow)
        return (*self.exchanges, *self.every_large, *probed, *joined, *more)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A lab, the requests sent through it, and everything observed.

    ``frames`` of all ``taps``, in time order; ``drops`` counts frames that the capture
    lost, by node. ``states`` are the nodes' states afterwards, by node, ``switches`` those of
    the networks' bridges, by network. ``counters`` is by how much each node's kernel raised its
    own meanwhile (nstat(8)'s names), ``kernel_drops`` what it dropped and why, ``kernel_log``
    what it wrote of martians to its log; all three are empty in reports written before they
    were noted, and the latter two where the kernel does not tell.

    ``before`` is what the nodes had learnt before the first request (neighbours, and the
    directors' connections), by node: asking begins with flushed caches. Entries of it that lead
    to a wrong MAC address were put back afterwards.
    """

    lab: Lab
    runs: tuple[Run, ...]
    frames: tuple[Frame, ...] = ()
    taps: tuple[Tap, ...] = ()
    drops: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, NodeState] = field(default_factory=dict)
    switches: Mapping[str, NodeState] = field(default_factory=dict)
    counters: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    kernel_drops: tuple[Dropped, ...] = ()
    kernel_log: tuple[str, ...] = ()
    packet_filters: Mapping[str, tuple[FilterRule, ...]] = field(default_factory=dict)
    """Rules of packet filters by node, and by network for its switch: those that an empty
    table would not have. ``packets`` is how many each matched while requests were sent."""
    before: Mapping[str, NodeState] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        """The number of frames that the capture lost."""
        return sum(self.drops.values())


def gue_ports(lab: Lab, runs: Iterable[Run]) -> frozenset[int]:
    """Return the UDP ports of GUE in a lab and in the tables that its ``runs`` found."""
    tables = (table for run in runs for table in (run.before, run.after) if table is not None)
    there = (server.tunnel_port for table in tables for server in table.real_servers)
    return lab.gue_ports | {GUE_PORT} | {port for port in there if port}


@dataclass(frozen=True, slots=True)
class Answers:
    """The outcome of one round of requests and ARP requests by ``watch``.

    ``exchanges`` by the service's name. ``arp`` are the MAC addresses that replied to an
    ARP request, by the requesting node and the VIP.
    """

    exchanges: Mapping[str, tuple[Exchange, ...]]
    arp: Mapping[tuple[str, IPAddress], tuple[str, ...]]
