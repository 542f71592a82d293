"""A lab as configured: networks, nodes and virtual services, every address decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress, IPInterface, IPNetwork
from lvsctl.model.service import ForwardingMethod, IpvsTimeouts, VirtualService

NAMESPACE_PREFIX = "lvs"


class Role(StrEnum):
    """What a node is in the LVS layout."""

    CLIENT = "client"
    DIRECTOR = "director"
    REAL_SERVER = "real-server"
    ROUTER = "router"


@dataclass(frozen=True, slots=True)
class Impairment:
    """How a link impairs the frames that a node sends on it (tc-netem(8)).

    ``delay`` in milliseconds one way, ``jitter`` by how many it varies, ``rate`` in bits per
    second; the others in percent of the frames: lost, sent at once instead of after ``delay``,
    sent twice, and with one bit inverted. 0: none.
    """

    delay: float = 0.0
    loss: float = 0.0
    rate: int = 0
    jitter: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0

    def __bool__(self) -> bool:
        return self != Impairment()

    @property
    def lost(self) -> float:
        """Frames that do not arrive undamaged, in percent."""
        return min(100.0, self.loss + self.corrupt)

    @property
    def disturbs(self) -> bool:
        """Whether frames arrive damaged, twice, or in another order than they were sent in."""
        return bool(self.jitter or self.reorder or self.duplicate or self.corrupt)


USUAL_MTU = 1500
"""Of Ethernet, and of a new veth (IEEE 802.3)."""


@dataclass(frozen=True, slots=True)
class Network:
    """One L2 segment: every node receives every broadcast of the others."""

    name: str
    subnets: tuple[IPNetwork, ...]
    impairment: Impairment = Impairment()
    mtu: int = USUAL_MTU
    """Bytes of the largest IP packet that its links carry."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A node's interface, named after the network that it is on.

    ``impairment`` is its own, of what the node sends on it (None: that of the network); ``mtu``
    is that of its link to the switch (0: that of the network).
    ``chosen`` are those of ``addresses`` that the topology leaves to lvsctl.
    """

    network: str
    addresses: tuple[IPInterface, ...]
    impairment: Impairment | None = None
    chosen: tuple[IPInterface, ...] = field(default=(), compare=False)
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """A static route. ``to`` None means the default route.

    ``more`` are further next hops: each flow is sent to one of them (equal-cost multipath).
    ``mtu`` is that of packets on it, ``mss`` the segment size that the node announces to its TCP
    peers there, in bytes (ip-route(8), mtu and advmss); 0: those of the link.
    """

    to: IPNetwork | None
    via: IPAddress
    mtu: int = 0
    mss: int = 0
    more: tuple[IPAddress, ...] = ()

    @property
    def gateways(self) -> tuple[IPAddress, ...]:
        """Every next hop, the first one first."""
        return (self.via, *self.more)


def runs_keepalived(argv: tuple[str, ...]) -> bool:
    """Return whether a command, of words or of a shell, runs keepalived."""
    words = argv[2].split() if argv[:2] == ("/bin/sh", "-c") and len(argv) > 2 else argv[:1]
    return any(word.rpartition("/")[2] == "keepalived" for word in words)


class Redundancy(StrEnum):
    """How several directors share their VIPs."""

    VRRP = "vrrp"
    """One of them at a time has them: the master (RFC 5798)."""
    ECMP = "ecmp"
    """Each has them, and routers spread flows over all (equal-cost multipath, RFC 2992)."""


@dataclass(frozen=True, slots=True)
class HighAvailability:
    """How a director shares its VIPs with the others, by VRRP (RFC 5798).

    ``router_id`` is the virtual router id of the first VRRP instance, ``advert_int`` the seconds
    between a master's advertisements. ``sync`` sends IPVS's connections to the backup, after
    ``sync_threshold`` packets of one and again every so many (ipvs-sysctl.rst). ``gateways`` are
    virtual addresses that are no VIP of a service: real servers' default gateways. ``password``
    is what advertisements carry in clear text, in VRRP version 2 only (empty: none).
    """

    router_id: int = 51
    priority: int = 100
    advert_int: float = 1.0
    preempt: bool = True
    unicast: bool = False
    sync: bool = False
    sync_threshold: tuple[int, int] = (3, 50)
    gateways: tuple[IPAddress, ...] = ()
    password: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A host of the lab, living in a network namespace of its own.

    ``group`` is the name under which the topology declares it (``rs`` for ``rs1``).
    ``routes`` and ``sysctls`` are the topology's own, beyond what is derived.
    ``run`` is the user's own command in place of the built-in responder (empty: none).
    ``timeouts`` are those of a director's IPVS (None: as IPVS has them). ``keepalived`` is the
    path of the file that a director's keepalived reads: then ``run`` is the command for it.
    ``ha``: how a director takes over from others, and they from it (None: it is alone).
    """

    name: str
    role: Role
    group: str
    interfaces: tuple[Interface, ...]
    routes: tuple[Route, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    run: tuple[str, ...] = ()
    timeouts: IpvsTimeouts | None = None
    keepalived: str = ""
    ha: HighAvailability | None = None
    mss_clamp: int | None = None
    """The largest segment size in SYNs that leave it, in bytes (0: what the path carries)."""
    ecmp: bool = False
    """Whether a director has the VIPs together with the others, and routers choose one of them
    for each flow. Its ``ha`` is None then."""

    @property
    def runs_keepalived(self) -> bool:
        """Whether its own command is keepalived: then that decides what is in its IPVS table."""
        return runs_keepalived(self.run)

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of the networks that the node is on, first one first."""
        return tuple(interface.network for interface in self.interfaces)

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """The node's own addresses, those of its first network first."""
        return tuple(address.ip for i in self.interfaces for address in i.addresses)

    def addresses_on(self, network: str) -> tuple[IPInterface, ...]:
        """The node's addresses on ``network``; empty if it is not on it."""
        return next((i.addresses for i in self.interfaces if i.network == network), ())


@dataclass(frozen=True, slots=True)
class Lab:
    """One topology under a lab's name, completely decided: the planner's only input."""

    name: str
    description: str
    networks: tuple[Network, ...]
    nodes: tuple[Node, ...]
    services: tuple[VirtualService, ...]
    _named: dict[str, Node] = field(init=False, repr=False, compare=False)
    _having: dict[Role, tuple[Node, ...]] = field(init=False, repr=False, compare=False)
    # Indexes, because the planner needs both for every node.

    def __post_init__(self) -> None:
        having: dict[Role, list[Node]] = {}
        for node in self.nodes:
            having.setdefault(node.role, []).append(node)
        object.__setattr__(self, "_named", {node.name: node for node in reversed(self.nodes)})
        object.__setattr__(self, "_having", {role: tuple(mine) for role, mine in having.items()})

    def node(self, name: str) -> Node:
        """The node called ``name``. Raises KeyError."""
        return self._named[name]

    def network(self, name: str) -> Network:
        """The network called ``name``. Raises KeyError."""
        for network in self.networks:
            if network.name == name:
                return network
        raise KeyError(name)

    def having(self, role: Role) -> tuple[Node, ...]:
        """The nodes of one role, in the topology's order."""
        return self._having.get(role, ())

    def impairment_of(self, node: Node, network: str) -> Impairment:
        """How what ``node`` sends on ``network`` is impaired."""
        for interface in node.interfaces:
            if interface.network == network and interface.impairment is not None:
                return interface.impairment
        return self.network(network).impairment

    def mtu_of(self, node: Node, network: str) -> int:
        """Bytes of the largest IP packet on a node's link to ``network``."""
        own = next((i.mtu for i in node.interfaces if i.network == network), 0)
        return own or self.network(network).mtu

    @property
    def impairments(self) -> tuple[Impairment, ...]:
        """Every impairment of a link, and those of the networks."""
        own = (one.impairment for node in self.nodes for one in node.interfaces)
        return (
            *(network.impairment for network in self.networks),
            *(one for one in own if one is not None),
        )

    @property
    def default_client(self) -> Node:
        """The client that sends requests if none is named: the topology's first."""
        return self.having(Role.CLIENT)[0]

    @property
    def directors(self) -> tuple[Node, ...]:
        """The directors: IPVS is configured the same on each."""
        return self.having(Role.DIRECTOR)

    @property
    def ecmp(self) -> bool:
        """Whether all its directors handle requests at the same time (``ha: ecmp``)."""
        return len(self.directors) > 1 and all(node.ecmp for node in self.directors)

    @property
    def gateways(self) -> tuple[IPAddress, ...]:
        """The real servers' default gateways that whichever director is master holds."""
        every = (one for node in self.directors if node.ha for one in node.ha.gateways)
        return tuple(dict.fromkeys(every))

    @property
    def floating(self) -> tuple[IPAddress, ...]:
        """The addresses that move from a director to another: VIPs and gateways; else empty."""
        if all(node.ha is None for node in self.directors):
            return ()
        vips = (vip for service in self.services for vip in service.vips)
        return tuple(dict.fromkeys((*vips, *self.gateways)))

    @property
    def gue_ports(self) -> frozenset[int]:
        """The UDP ports that its tunnels send GUE to."""
        servers = (server for service in self.services for server in service.real_servers)
        return frozenset(server.tunnel_port for server in servers if server.tunnel_port)

    @property
    def ipv6(self) -> bool:
        """Whether any network of the lab carries IPv6."""
        return any(subnet.version == 6 for n in self.networks for subnet in n.subnets)

    def is_deprecated(self, vip: IPAddress) -> bool:
        """Whether directors hold ``vip`` as a deprecated address: where they tunnel over IPv6."""
        return vip.version == 6 and any(
            server.rip.version == 6
            for service in self.services
            for server in service.by(ForwardingMethod.TUN)
        )

    def network_of(self, address: IPAddress) -> Network | None:
        """The network whose subnet contains ``address``."""
        for network in self.networks:
            if any(address in subnet for subnet in network.subnets):
                return network
        return None

    def netns(self, member: str) -> str:
        """The namespace's name of a node, or of a network's switch."""
        return f"{NAMESPACE_PREFIX}-{self.name}-{member}"


class Violation(NamedTuple):
    """Where the topology violates a rule, and what would be right.

    ``path`` leads to the key in the topology file: ``("services", 0, "real_servers", 1)``.
    """

    path: tuple[str | int, ...]
    message: str
    hint: str = ""
