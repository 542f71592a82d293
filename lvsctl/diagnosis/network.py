"""The network according to the nodes' state: who holds an address, and a packet's path.

Routes, addresses, neighbours and filters are the kernel's, not the topology's, so that a
packet can be followed through a lab that was changed by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from lvsctl.diagnosis.route_lookup import Lookup, lookup
from lvsctl.model.addresses import IPAddress, IPNetwork, mac_for
from lvsctl.model.lab import Lab
from lvsctl.model.ruleset import Ruleset
from lvsctl.model.state import LinkState, NeighbourState, NodeState, RouteState, RuleState, Setting

MAX_HOPS = 16
"""More hops than this are a loop."""


class BlockReason(Enum):
    """Why a packet is not delivered."""

    NO_ROUTE = auto()
    REFUSED = auto()
    """A route or rule of type blackhole, unreachable or prohibit."""
    LINK_DOWN = auto()
    NO_ADDRESS = auto()
    """There is no route, because the node lacks its own address, or has it with another prefix."""
    NO_OWNER = auto()
    """No node on the network holds the next hop's address."""
    STALE_NEIGHBOUR = auto()
    """A neighbour entry has another MAC address than the next hop."""
    NOT_FORWARDING = auto()
    RP_FILTER = auto()
    MARTIAN = auto()
    """The source is the receiving node's own address."""
    LOOP = auto()


@dataclass(frozen=True, slots=True)
class Hop:
    """One hop: on the network ``device`` to the next hop ``to``, an address of ``arrives``."""

    node: str
    device: str
    to: IPAddress
    route: RouteState
    arrives: str
    rule: RuleState | None = None
    """The rule of policy routing that chose the route, if it is none of the usual ones."""


@dataclass(frozen=True, slots=True)
class Block:
    """Where a packet ends, and why."""

    reason: BlockReason
    node: str
    device: str = ""
    address: IPAddress | None = None
    fact: str = ""
    lookup: Lookup | None = None
    """What refuses the packet (REFUSED)."""


@dataclass(frozen=True, slots=True)
class Path:
    """The hops of a packet; it arrives at ``end`` if ``block`` is None."""

    hops: tuple[Hop, ...]
    end: str
    block: Block | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node on the path, the sender first."""
        return tuple(dict.fromkeys((*(hop.node for hop in self.hops), self.end)))


class _Blocked(Exception):
    def __init__(self, block: Block) -> None:
        super().__init__(block)
        self.block = block


class _Index:
    """Which nodes have an address: every path asks it of every node.

    ``connected`` are the nodes with a live interface, by network, as far as they were asked for.
    """

    def __init__(self, states: Mapping[str, NodeState]) -> None:
        self._holders: dict[IPAddress, dict[str, tuple[LinkState, ...]]] = {}
        self._up: dict[IPAddress, set[str]] = {}
        self._whole: dict[IPNetwork, set[str]] = {}
        self._local: dict[IPAddress, frozenset[str]] = {}
        self.connected: dict[str, tuple[str, ...]] = {}
        for node, state in states.items():
            for link in state.links:
                self._add(node, link)

    def _add(self, node: str, link: LinkState) -> None:
        for address in dict.fromkeys(one.ip for one in link.addresses):
            nodes = self._holders.setdefault(address, {})
            nodes[node] = (*nodes.get(node, ()), link)
            if link.up:
                self._up.setdefault(address, set()).add(node)
        for held in link.addresses if link.up and link.name == "lo" else ():
            if held.version == 4:
                self._whole.setdefault(held.network, set()).add(node)

    def holders(self, address: IPAddress) -> Mapping[str, tuple[LinkState, ...]]:
        """The devices with an address, up or down, by node."""
        return self._holders.get(address, {})

    def local(self, address: IPAddress) -> frozenset[str]:
        """The nodes to which an address is local (``Network.local``)."""
        if address not in self._local:
            within = (nodes for network, nodes in self._whole.items() if address in network)
            self._local[address] = frozenset(self._up.get(address, ())).union(*within)
        return self._local[address]


@dataclass(frozen=True, slots=True)
class Network:
    """A lab's nodes and their state."""

    lab: Lab
    states: Mapping[str, NodeState]
    devices: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """The device of a node on a network, where they are known: those of hosts that no lab is on.

    Empty: none."""
    rulesets: Mapping[str, Ruleset] = field(default_factory=dict)
    """The packet filters of hosts by node, where all of them are known: of no lab."""
    _index: _Index = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", _Index(self.states))

    def state(self, node: str) -> NodeState:
        """A node's state; empty if it was not read."""
        return self.states.get(node) or NodeState(self.lab.netns(node))

    def number(self, node: str, key: str) -> int:
        """A sysctl's value; 0 if it was not read."""
        changed = self.changed(node, key)
        value = changed.value if changed else self.state(node).sysctls.get(key, "0")
        return int(value) if value.lstrip("-").isdigit() else 0

    def effective(self, node: str, device: str, setting: str) -> int:
        """The value that the kernel uses: the maximum of ``all`` and the device (ip-sysctl.rst)."""
        keys = (f"net.ipv4.conf.{scope.replace('.', '/')}.{setting}" for scope in ("all", device))
        return max(self.number(node, key) for key in keys)

    def forwards(self, node: str, version: int, device: str = "") -> bool:
        """Whether a node forwards packets, those that ``device`` received in particular."""
        return self.number(node, self.forwarding_key(node, version, device)) != 0

    def forwarding_key(self, node: str, version: int, device: str = "") -> str:
        """The sysctl that decides that: the device's own where it differs from all.

        Writing the one for all writes the devices' own: it is named if both are the same.
        """
        general = "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
        own = f"net.ipv{version}.conf.{device.replace('.', '/')}.forwarding"
        if self.changed(node, own) is None or self.number(node, own) == self.number(node, general):
            return general
        return own

    def changed(self, node: str, key: str) -> Setting | None:
        """A sysctl that no plan sets and that differs from a fresh namespace's."""
        changed = self.state(node).changed_sysctls or ()
        return next((one for one in changed if one.name == key), None)

    def ipv6_off(self, node: str, device: str) -> Setting | None:
        """The sysctl that switches IPv6 off at a device, or at the whole node."""
        for scope in ("all", device.replace(".", "/")):
            changed = self.changed(node, f"net.ipv6.conf.{scope}.disable_ipv6")
            if changed is not None and changed.value != "0":
                return changed
        return None

    def holders(self, node: str, address: IPAddress) -> tuple[LinkState, ...]:
        """The devices on which a node has an address, up or down."""
        return self._index.holders(address).get(node, ())

    def holding(self, address: IPAddress) -> Collection[str]:
        """The nodes that have an address, on a device that is up or down."""
        return self._index.holders(address)

    def local(self, node: str, address: IPAddress) -> bool:
        """Whether ``address`` is local to a node.

        On a loopback device the whole prefix is local; on a device that is down, nothing is.
        """
        return node in self._index.local(address)

    def route(self, node: str, to: IPAddress, source: IPAddress | None = None) -> RouteState | None:
        """The route that a node uses for a packet from ``source`` (its own, if None)."""
        return lookup(self.state(node), to, source).route

    def answers(self, node: str, device: str, address: IPAddress) -> bool:
        """Whether a node answers ARP requests for ``address`` that ``device`` receives."""
        if not self.local(node, address):
            return False
        receiving = self.interface(node, device)
        on_it = any(link == receiving for link in self.holders(node, address))
        if address.version == 6:
            return on_it  # only for addresses of the interface itself: none of lo's (ndisc_recv_ns)
        ignore = self.effective(node, receiving.name if receiving else device, "arp_ignore")
        if ignore in (1, 2):
            return on_it
        return ignore != 8

    def interface(self, node: str, network: str) -> LinkState | None:
        """A node's interface on a network: by its name, or by its MAC address if renamed."""
        if (known := self.devices.get((node, network))) is not None:
            return self.state(node).link(known)
        state, planned = self.state(node), self.lab.node(node)
        named = state.link(network)
        if named is not None or network not in planned.networks:
            return named
        mac = mac_for(planned.addresses_on(network)[0].ip)
        return next((link for link in state.links if link.mac == mac), None)

    def device(self, node: str, network: str) -> str:
        """The name of a node's interface on a network; the network's if it has none."""
        link = self.interface(node, network)
        return link.name if link is not None else self.devices.get((node, network)) or network

    def network_of(self, node: str, device: str) -> str:
        """The network of a node's device: its name, unless the device was renamed."""
        networks = self.lab.node(node).networks
        known = any((node, network) in self.devices for network in networks)
        renamed = (n for n in networks if (own := self.interface(node, n)) and own.name == device)
        return device if device in networks and not known else next(renamed, device)

    def arrival(self, hop: Hop) -> str:
        """The device by which a packet comes in at the end of a hop."""
        link = self.interface(hop.arrives, hop.device)
        return link.name if link is not None else self.device(hop.arrives, hop.device)

    def connected(self, network: str) -> Iterator[str]:
        """The nodes with a live interface on a network."""
        if network not in self._index.connected:
            self._index.connected[network] = tuple(self._connected(network))
        yield from self._index.connected[network]

    def _connected(self, network: str) -> Iterator[str]:
        for node in self.lab.nodes:
            link = self.interface(node.name, network)
            if link is not None and link.up and link.carrier:
                yield node.name

    def neighbour(self, node: str, device: str, address: IPAddress) -> NeighbourState | None:
        """The entry of a node's neighbour table, if it has a MAC address."""
        for entry in self.state(node).neighbours:
            if (entry.address, entry.device) == (address, device) and entry.mac:
                return entry
        return None

    def having_mac(self, network: str, mac: str) -> str:
        """The node that has a MAC address on a network; empty if none has."""
        for node in self.lab.nodes:
            link = self.interface(node.name, network)
            if link is not None and link.mac == mac:
                return node.name
        return ""

    # ── paths ───────────────────────────────────────────────────────────────────────────────

    def path(self, start: str, src: IPAddress, dst: IPAddress, *, wanted: str = "") -> Path:
        """The path of a packet from ``start``; ``wanted`` is preferred if several hold ``dst``.

        The sender's own addresses are ignored: it sends the packet in any case.
        """
        hops: list[Hop] = []
        node = start
        try:
            while len(hops) < MAX_HOPS:
                arrived = self.arrival(hops[-1]) if hops else ""
                hop = self._step(node, dst, wanted, src, arrived)
                hops.append(hop)
                self._check_arrival(hop, src)
                node = hop.arrives
                if self.local(node, dst):
                    return Path(tuple(hops), node)
                device = self.arrival(hop)
                if not self.forwards(node, dst.version, device):
                    fact = f"{node}: does not forward, and {dst} is not its own address"
                    raise _Blocked(Block(BlockReason.NOT_FORWARDING, node, device, dst, fact))
        except _Blocked as stopped:
            return Path(tuple(hops), node, stopped.block)
        return Path(tuple(hops), node, Block(BlockReason.LOOP, hops[0].node, hops[0].device, dst))

    def _step(self, node: str, dst: IPAddress, wanted: str, src: IPAddress, arrived: str) -> Hop:
        found = lookup(self.state(node), dst, src, arrived)
        route = found.route
        if found.refused:
            fact = f"{node}: {_named(found)} for packets to {dst}"
            raise _Blocked(Block(BlockReason.REFUSED, node, "", dst, fact, found))
        if route is None:
            raise _Blocked(self._no_route(node, dst))
        link = self.state(node).link(route.device)
        to = route.via or dst
        if link is None or not link.up or not link.carrier:
            fact = f"{node}: {route.device} is down"
            raise _Blocked(Block(BlockReason.LINK_DOWN, node, route.device, to, fact))
        entry = self.neighbour(node, route.device, to)
        network = self.network_of(node, route.device)
        owner = self._owner(node, network, to, wanted)
        if entry is not None and entry.state == "permanent":
            there = self.having_mac(network, entry.mac)
            other = self.interface(owner, network) if owner else None
            unknown = other is not None and not other.mac  # a node whose state was not read
            if not unknown and (there != owner or not there):
                fact = (
                    f"{node}: {to} is at {entry.mac} ({entry.state}), "
                    + (f"which is {there}" if there else "which no node has")
                )  # fmt: skip
                raise _Blocked(Block(BlockReason.STALE_NEIGHBOUR, node, route.device, to, fact))
        if not owner:
            fact = (
                f"{node}: sends to {to} on {route.device}, where no node answers for that address"
            )
            raise _Blocked(Block(BlockReason.NO_OWNER, node, network, to, fact))
        return Hop(node, network, to, route, owner, found.rule)

    def _no_route(self, node: str, dst: IPAddress) -> Block:
        for name in self.lab.node(node).networks:
            link = self.interface(node, name)
            if link is None or not link.up or not link.carrier:
                device = self.device(node, name)
                fact = f"{node}: {device} is {'down' if link else 'missing'}"
                return Block(BlockReason.LINK_DOWN, node, name, dst, fact)
            for address in self.lab.node(node).addresses_on(name):
                if address.version == dst.version and address not in link.addresses:
                    fact = f"{node}: {address} is not on {link.name}"
                    return Block(BlockReason.NO_ADDRESS, node, name, dst, fact)
        return Block(BlockReason.NO_ROUTE, node, "", dst, f"{node}: no route to {dst}")

    def _owner(self, node: str, network: str, address: IPAddress, wanted: str) -> str:
        found = [
            other
            for other in self.connected(network)
            if other != node
            and self.local(other, address)
            and (link := self.interface(other, network)) is not None
            and self.answers(other, link.name, address)
        ]
        return wanted if wanted in found else next(iter(found), "")

    def _check_arrival(self, hop: Hop, src: IPAddress) -> None:
        """Validate the source as the receiving kernel does (fib_validate_source)."""
        node, device = hop.arrives, self.arrival(hop)
        if src.version != 4:
            return
        if self.local(node, src) and not self.effective(node, device, "accept_local"):
            fact = f"{node}: the packet's source {src} is its own address"
            raise _Blocked(Block(BlockReason.MARTIAN, node, device, src, fact))
        fact = self.filtered(node, device, src)
        if fact:
            raise _Blocked(Block(BlockReason.RP_FILTER, node, device, src, fact))

    def filtered(self, node: str, device: str, src: IPAddress) -> str:
        """Why reverse path filtering drops packets from ``src`` received by ``device``; or empty.

        1 requires a return path through the same device, 2 any return path.
        """
        mode = self.effective(node, device, "rp_filter")
        back = self.route(node, src)
        if mode == 1 and (back is None or back.device != device):
            leads = (
                f"its route to {src} is through {back.device}"
                if back
                else f"it has no route to {src}"
            )
            return f"{node}: rp_filter=1 applies to {device}, and {leads}"
        if mode == 2 and back is None:
            return f"{node}: rp_filter=2 applies to {device}, and it has no route to {src}"
        return ""


def _named(found: Lookup) -> str:
    """A route or rule that refuses packets, in ip(8)'s words."""
    if found.rule is not None:
        return f"the rule `{found.rule.preference}: {found.rule.text}` refuses ({found.refused})"
    to = found.route.to if found.route is not None else None
    return f"the route `{found.refused} {to or 'default'}`"
