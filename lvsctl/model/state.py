"""A node's state in the kernel: observed, never configured."""

from __future__ import annotations

from dataclasses import dataclass, field

from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.lab import Impairment
from lvsctl.model.service import Encapsulation, ForwardingMethod, Protocol, ServiceMatch


@dataclass(frozen=True, slots=True)
class LinkState:
    """A device. ``kind`` is rtnetlink's (veth, bridge, ipip …; empty for lo); ``mtu`` in bytes."""

    name: str
    index: int
    kind: str
    mac: str
    mtu: int
    up: bool
    carrier: bool
    master: str = ""
    addresses: tuple[IPInterface, ...] = ()
    impairment: Impairment = field(default_factory=Impairment)
    noarp: bool = False
    """Whether the device does not use ARP (IFF_NOARP), as tunnels."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """A route of the main table. ``to`` None is the default route; ``via`` None is on-link."""

    to: IPNetwork | None
    via: IPAddress | None
    device: str
    kernel: bool
    """Made by the kernel itself, for an address."""


@dataclass(frozen=True, slots=True)
class NeighbourState:
    """An entry of the ARP or ND cache. ``state`` is one of ip-neighbour(8)'s words."""

    address: IPAddress
    device: str
    mac: str
    state: str


@dataclass(frozen=True, slots=True)
class ListenerState:
    """A listening socket, with the process that holds it if known."""

    protocol: Protocol
    address: IPAddress
    port: int
    process: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """IPVS's counters of a service or of a real server: totals since it was added."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class RealServerState:
    """A real server in IPVS's table."""

    rip: IPAddress
    port: int
    forward: ForwardingMethod | str
    """A forwarding method, or IPVS's other methods (``local``, ``bypass``) by name."""
    weight: int
    upper: int
    lower: int
    active: int
    """Connections in state ESTABLISHED."""
    inactive: int
    """Connections in any other state."""
    counters: Counters = field(default_factory=Counters)
    encapsulation: Encapsulation = Encapsulation.IPIP
    """Used in TUN only."""
    tunnel_port: int = 0
    """The UDP port that GUE is sent to; 0 without GUE."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A virtual service in IPVS's table. ``persistence`` in seconds; 0: none."""

    match: ServiceMatch
    scheduler: str
    persistence: int
    real_servers: tuple[RealServerState, ...]
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, slots=True)
class Connection:
    """An entry of IPVS's connection table (/proc/net/ip_vs_conn). ``expires`` in seconds."""

    protocol: Protocol
    client: IPAddress
    client_port: int
    vip: IPAddress
    vport: int
    rip: IPAddress
    rport: int
    state: str
    expires: int


@dataclass(frozen=True, slots=True)
class NodeState:
    """One namespace. A sysctl that the kernel does not have is missing from ``sysctls``."""

    netns: str
    links: tuple[LinkState, ...] = ()
    routes: tuple[RouteState, ...] = ()
    neighbours: tuple[NeighbourState, ...] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    services: tuple[ServiceState, ...] = ()
    connections: tuple[Connection, ...] = ()
    listeners: tuple[ListenerState, ...] = ()
    gue_ports: tuple[int, ...] = ()
    """UDP ports on which GUE is decapsulated."""

    def link(self, name: str) -> LinkState | None:
        """The device called ``name``; None if it does not exist."""
        return next((link for link in self.links if link.name == name), None)
