"""Samples of a lab for `watch`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lvsctl.model.addresses import IPAddress
from lvsctl.model.counted import Dropped
from lvsctl.model.exchange import Exchange
from lvsctl.model.state import NodeState, ServiceState


@dataclass(frozen=True, slots=True)
class Gauge:
    """What a node's kernel has counted since the namespace was made.

    Bytes and packets are those of the node's interfaces, loopback left out; a tunnel's are
    counted at the interface below it. ``counters`` by nstat(8)'s names.
    """

    received: int = 0
    sent: int = 0
    packets_received: int = 0
    packets_sent: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)


HalfOpen = frozenset[tuple[IPAddress, str]]
"""Connections in IPVS's table that wait for their handshake: the RIP, and what names them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything that is looked at, at ``when`` (``clock`` is the same on time.monotonic()'s).

    ``states`` and ``gauges`` by node; a node whose namespace is gone is in neither. ``table``
    is the director's. ``half_open`` is None where the connection table is too long to be read
    all the time. ``dropped`` is what the kernel told since the last sample, where it tells.
    """

    when: float
    clock: float
    states: Mapping[str, NodeState]
    gauges: Mapping[str, Gauge]
    table: tuple[ServiceState, ...]
    half_open: HalfOpen | None
    dropped: tuple[Dropped, ...] = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of one round of probes, where they are wanted.

    ``exchanges`` by the service's name. ``arp`` are the MAC addresses that answered a question
    for a VIP, by who asked and the VIP.
    """

    exchanges: Mapping[str, tuple[Exchange, ...]]
    arp: Mapping[tuple[str, IPAddress], tuple[str, ...]]
