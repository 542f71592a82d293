"""A topology file's content, typed but not yet checked as a whole.

None means omitted, or wrong and already reported. So every later check works with what
is valid, and one run finds all mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress, IpFamily, IPInterface, IPNetwork
from lvsctl.model.drill import Limit, Verb
from lvsctl.model.lab import Impairment, Redundancy, Role
from lvsctl.model.service import (
    ASKED_OF_ANY,
    GUE_PORT,
    Encapsulation,
    ForwardingMethod,
    FwMark,
    IpvsTimeouts,
    PersistenceEngine,
    PortRange,
    Protocol,
    Scheduler,
    SchedulerFlag,
    ServiceMatch,
    TunnelChecksum,
    VipPort,
)

AddressConfig = IPAddress | IPInterface


class LinkConfig(NamedTuple):
    """One entry of a node's ``links``: None is as the network has it."""

    delay: float | None = None
    loss: float | None = None
    rate: int | None = None
    jitter: float | None = None
    reorder: float | None = None
    duplicate: float | None = None
    corrupt: float | None = None
    mtu: int | None = None

    def impairment(self, network: Impairment) -> Impairment:
        """Return the link's impairment, on a network with its own."""
        given = {key: value for key, value in self._asdict().items() if value is not None}
        given.pop("mtu", None)
        return replace(network, **given)


class NetworkConfig(NamedTuple):
    """One entry of ``networks``."""

    ipv4: IPv4Network | None = None
    ipv6: IPv6Network | None = None
    delay: float | None = None
    loss: float | None = None
    rate: int | None = None
    mtu: int | None = None
    jitter: float | None = None
    reorder: float | None = None
    duplicate: float | None = None
    corrupt: float | None = None

    @property
    def impairment(self) -> Impairment:
        """How each of its links is impaired."""
        return LinkConfig(
            *(self.delay, self.loss, self.rate, self.jitter),
            *(self.reorder, self.duplicate, self.corrupt),
        ).impairment(Impairment())

    @property
    def subnets(self) -> tuple[IPNetwork, ...]:
        """The subnets, IPv4 first."""
        return tuple(subnet for subnet in (self.ipv4, self.ipv6) if subnet is not None)


class RouteConfig(NamedTuple):
    """One entry of a node's ``routes``; ``to`` holds the target (None: default) in a tuple."""

    to: tuple[IPNetwork | None] | None = None
    via: IPAddress | None = None
    mtu: int | None = None
    mss: int | None = None


class TimeoutsConfig(NamedTuple):
    """A director's ``timeouts``, in seconds."""

    tcp: int | None = None
    tcp_fin: int | None = None
    udp: int | None = None

    @property
    def wanted(self) -> IpvsTimeouts:
        """The timeouts, those left out as IPVS has them."""
        usual = IpvsTimeouts()
        return IpvsTimeouts(
            self.tcp or usual.tcp, self.tcp_fin or usual.tcp_fin, self.udp or usual.udp
        )


class HaConfig(NamedTuple):
    """A director's ``ha``; ``advert_int`` in seconds, ``priority`` None: by its position.

    The other settings are of VRRP alone; ``ecmp`` has none.
    """

    virtual_router_id: int | None = 51
    priority: int | None = None
    advert_int: float | None = 1.0
    preempt: bool | None = True
    unicast: bool | None = False
    sync: bool | None = False
    sync_threshold: tuple[int | None, ...] | None = (3, 50)
    gateways: tuple[IPAddress | None, ...] | None = ()
    password: str | None = ""
    by: Redundancy = Redundancy.VRRP


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One entry of ``nodes``: one node or, with ``count``, several alike."""

    role: Role | None = None
    networks: dict[str, tuple[AddressConfig | None, ...] | None] | None = None
    count: int | None = None
    routes: tuple[RouteConfig | None, ...] | None = ()
    sysctls: dict[str, str | None] | None = field(default_factory=dict)
    run: tuple[str, ...] | None = ()
    timeouts: TimeoutsConfig | None = None
    keepalived: str | None = None
    ha: HaConfig | None = None
    links: dict[str, LinkConfig | None] | None = field(default_factory=dict)
    mss_clamp: int | None = None


class EncapsulationConfig(NamedTuple):
    """An ``encapsulation``: its kind; the UDP port is GUE's own, 6080, where None."""

    type: Encapsulation | None = None
    port: int | None = None
    checksum: TunnelChecksum | None = TunnelChecksum.NONE

    @property
    def tunnel_port(self) -> int:
        """The UDP port; 0 where the encapsulation has none."""
        return (self.port or GUE_PORT) if self.type is Encapsulation.GUE else 0


class RealServerConfig(NamedTuple):
    """One entry of ``real_servers``: ``node`` names a node or a group.

    ``forward`` and ``encapsulation`` are the service's where None; ``network``: where the node
    has the address that requests are sent to.
    """

    node: str | None = None
    weight: int | None = 1
    port: int | None = None
    upper: int | None = 0
    lower: int | None = 0
    forward: ForwardingMethod | None = None
    encapsulation: EncapsulationConfig | None = None
    network: str | None = None
    family: IpFamily | None = None


class SchedulerConfig(NamedTuple):
    """A service's ``scheduler``."""

    name: Scheduler | None = None
    flags: tuple[SchedulerFlag | None, ...] | None = ()


class PersistenceConfig(NamedTuple):
    """A service's ``persistence``: ``timeout`` in seconds, ``netmask`` in bits (0: all)."""

    timeout: int | None = 300  # ipvsadm(8)'s own
    netmask: int | None = 0
    engine: PersistenceEngine | None = None


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """One entry of ``services``."""

    name: str | None = None
    vip: IPAddress | None = None
    port: int | None = None
    forward: ForwardingMethod | None = None
    real_servers: tuple[RealServerConfig | None, ...] | None = None
    protocol: Protocol | None = Protocol.TCP
    scheduler: SchedulerConfig | None = field(
        default_factory=lambda: SchedulerConfig(Scheduler.WLC)
    )
    persistence: PersistenceConfig | None = None
    encapsulation: EncapsulationConfig | None = None
    one_packet: bool | None = False
    snat: bool | None = False
    vips: tuple[IPAddress | None, ...] | None = None
    ports: tuple[PortRange, ...] | None = None
    fwmark: int | None = None
    sorry_server: RealServerConfig | None = None

    @property
    def marked(self) -> bool:
        """Whether it is a service by firewall mark."""
        return self.vips is not None or self.ports is not None or self.fwmark is not None

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Its VIPs."""
        return tuple(vip for vip in (self.vip, *(self.vips or ())) if vip is not None)

    @property
    def key(self) -> VipPort | None:
        """The first protocol, VIP and port that it is reached by, if all three parts are there."""
        port = self.port
        if self.ports is not None:
            port = self.ports[0].first if self.ports else ASKED_OF_ANY[0]
        elif self.marked and port == 0:
            port = ASKED_OF_ANY[0]
        if self.protocol is None or not self.addresses or port is None:
            return None
        return VipPort(self.protocol, self.addresses[0], port)

    def match(self, mark: int) -> ServiceMatch | None:
        """What names it in the kernel: ``mark`` if it is a service by firewall mark."""
        first = self.key
        if first is None or not self.marked:
            return first
        ranges = self.ports
        if ranges is None:
            ranges = (PortRange(self.port, self.port),) if self.port else ()
        asked = dict.fromkeys(port for one in ranges for port in one) or ASKED_OF_ANY
        endpoints = tuple(
            VipPort(first.protocol, vip, port) for vip in self.addresses for port in asked
        )
        return FwMark(mark, first.version, endpoints, ranges)


class TrafficConfig(NamedTuple):
    """A drill's ``traffic``: ``rate`` in requests per second, ``hold`` in connections."""

    rate: float | None = None
    hold: int | None = None
    service: str | None = None
    client: str | None = None


class ExpectConfig(NamedTuple):
    """A drill's ``expect``."""

    lost: Limit | None = None
    late: Limit | None = None
    outage: Limit | None = None
    broken: Limit | None = None


Steps = tuple[tuple[Verb, tuple[str, ...]] | None, ...]
"""What is done at one time: verbs with their words."""


class DrillConfig(NamedTuple):
    """A drill's file; ``length`` in seconds."""

    version: int | None = None
    description: str | None = None
    topology: str | None = None
    traffic: TrafficConfig | None = None
    timeline: dict[str, Steps | None] | None = None
    length: float | None = None
    expect: ExpectConfig | None = None


@dataclass(frozen=True, slots=True)
class TopologyConfig:
    """The whole file."""

    version: int | None = None
    name: str | None = None
    description: str | None = ""
    networks: dict[str, NetworkConfig | None] | None = None
    nodes: dict[str, NodeConfig | None] | None = None
    groups: dict[str, tuple[str | None, ...] | None] | None = field(default_factory=dict)
    services: tuple[ServiceConfig | None, ...] | None = None
    traffic: TrafficConfig | None = None
    timeline: dict[str, Steps | None] | None = None
    length: float | None = None
    expect: ExpectConfig | None = None

    @property
    def drill(self) -> DrillConfig:
        """The drill that is in it."""
        return DrillConfig(
            description=self.description,
            traffic=self.traffic,
            timeline=self.timeline,
            length=self.length,
            expect=self.expect,
        )
