"""The network as the nodes' state makes it: who holds an address, and which way a packet takes.

Not the network as the topology has it: routes, addresses, neighbours and filters are
the kernel's. So a packet can be followed through a lab that was changed by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab
from lvsctl.model.state import LinkState, NeighbourState, NodeState, RouteState

FAR = 16
"""So many hops, and the packet goes round in circles."""


class Trouble(Enum):
    """Why a packet gets no further."""

    NO_ROUTE = auto()
    LINK_DOWN = auto()
    NOBODY = auto()
    """No node on the network holds the next hop's address."""
    STALE = auto()
    """A neighbour entry leads elsewhere."""
    NOT_FORWARDING = auto()
    RP_FILTER = auto()
    MARTIAN = auto()
    """The source is an address of the node's own."""
    LOOP = auto()


@dataclass(frozen=True, slots=True)
class Hop:
    """One node's step: out of ``device`` to the next hop ``to``, which ``arrives`` is."""

    node: str
    device: str
    to: IPAddress
    route: RouteState
    arrives: str


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Where a packet ends and why; ``hop`` is the last step before, where there was one."""

    trouble: Trouble
    node: str
    device: str = ""
    address: IPAddress | None = None
    fact: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """The steps of a packet; ``obstacle`` None: it arrives at ``end``."""

    hops: tuple[Hop, ...]
    end: str
    obstacle: Obstacle | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node that the packet comes to, the sender first."""
        return tuple(dict.fromkeys((*(hop.node for hop in self.hops), self.end)))


class _Stopped(Exception):
    def __init__(self, obstacle: Obstacle) -> None:
        super().__init__(obstacle)
        self.obstacle = obstacle


@dataclass(frozen=True, slots=True)
class Network:
    """A lab's nodes and what the kernel holds for them."""

    lab: Lab
    states: Mapping[str, NodeState]

    def state(self, node: str) -> NodeState:
        """What the kernel holds for a node; nothing where it was not looked at."""
        return self.states.get(node) or NodeState(self.lab.netns(node))

    def number(self, node: str, key: str) -> int:
        """A sysctl; 0 where it is not to be had."""
        value = self.state(node).sysctls.get(key, "0")
        return int(value) if value.lstrip("-").isdigit() else 0

    def effective(self, node: str, device: str, setting: str) -> int:
        """What the kernel goes by: the greater of ``all`` and the device (ip-sysctl.rst)."""
        keys = (f"net.ipv4.conf.{scope.replace('.', '/')}.{setting}" for scope in ("all", device))
        return max(self.number(node, key) for key in keys)

    def forwards(self, node: str, version: int) -> bool:
        """Whether a node is a router to the kernel."""
        key = "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
        return self.number(node, key) != 0

    def holders(self, node: str, address: IPAddress) -> tuple[LinkState, ...]:
        """The devices on which a node has an address, whether up or not."""
        links = self.state(node).links
        return tuple(link for link in links if any(a.ip == address for a in link.addresses))

    def local(self, node: str, address: IPAddress) -> bool:
        """Whether a node takes ``address`` for its own.

        On a loopback device that is all of a prefix; on a device that is down, nothing.
        """
        for link in self.state(node).links:
            for held in link.addresses if link.up else ():
                whole = link.name == "lo" and held.version == 4
                if held.ip == address or (whole and address in held.network):
                    return True
        return False

    def route(self, node: str, to: IPAddress) -> RouteState | None:
        """The route that a node takes: the longest prefix, the first of several."""
        best, length = None, -1
        for route in self.state(node).routes:
            via = route.via
            if route.to is None:
                if (via or to).version == to.version and length < 0:
                    best, length = route, 0
            elif to in route.to and route.to.prefixlen > length:
                best, length = route, route.to.prefixlen
        return best

    def answers(self, node: str, device: str, address: IPAddress) -> bool:
        """Whether a node answers ARP questions for ``address`` that come in at ``device``."""
        if not self.local(node, address):
            return False
        if address.version == 6:
            return True
        ignore = self.effective(node, device, "arp_ignore")
        if ignore in (1, 2):
            return any(link.name == device for link in self.holders(node, address))
        return ignore != 8

    def connected(self, device: str) -> Iterator[str]:
        """The nodes with a live interface on a network (interfaces are named after them)."""
        for node in self.lab.nodes:
            link = self.state(node.name).link(device)
            if link is not None and link.up and link.carrier:
                yield node.name

    def neighbour(self, node: str, device: str, address: IPAddress) -> NeighbourState | None:
        """The entry of a node's ARP or ND cache, where it holds a MAC address."""
        for entry in self.state(node).neighbours:
            if (entry.address, entry.device) == (address, device) and entry.mac:
                return entry
        return None

    def having_mac(self, device: str, mac: str) -> str:
        """The node that has a MAC address on a network; empty: nobody."""
        for node in self.lab.nodes:
            link = self.state(node.name).link(device)
            if link is not None and link.mac == mac:
                return node.name
        return ""

    # ── following a packet ───────────────────────────────────────────────────────────────────

    def way(self, start: str, src: IPAddress, dst: IPAddress, *, wanted: str = "") -> Way:
        """The way of a packet from ``start``; ``wanted`` is preferred where several hold ``dst``.

        The sender's own addresses are not looked at: it sends, wherever that leads.
        """
        hops: list[Hop] = []
        node = start
        try:
            while len(hops) < FAR:
                hop = self._step(node, dst, wanted)
                hops.append(hop)
                self._check_arrival(hop, src)
                node = hop.arrives
                if self.local(node, dst):
                    return Way(tuple(hops), node)
                if not self.forwards(node, dst.version):
                    fact = f"{node}: not forwarding, and {dst} is not its own address"
                    raise _Stopped(Obstacle(Trouble.NOT_FORWARDING, node, hop.device, dst, fact))
        except _Stopped as stopped:
            return Way(tuple(hops), node, stopped.obstacle)
        return Way(tuple(hops), node, Obstacle(Trouble.LOOP, hops[0].node, hops[0].device, dst))

    def _step(self, node: str, dst: IPAddress, wanted: str) -> Hop:
        route = self.route(node, dst)
        if route is None:
            raise _Stopped(self._no_route(node, dst))
        if not route.device:  # blackhole, unreachable or prohibit: no device, and no way
            fact = f"{node}: its route to {dst} is {route.to or 'default'}, which leads nowhere"
            raise _Stopped(Obstacle(Trouble.NO_ROUTE, node, "", dst, fact))
        link, to = self.state(node).link(route.device), route.via or dst
        if link is None or not link.up or not link.carrier:
            fact = f"{node}: {route.device} is down"
            raise _Stopped(Obstacle(Trouble.LINK_DOWN, node, route.device, to, fact))
        entry = self.neighbour(node, route.device, to)
        owner = self._owner(node, route.device, to, wanted)
        if entry is not None and entry.state == "permanent":
            there = self.having_mac(route.device, entry.mac)
            if there != owner or not there:
                fact = (
                    f"{node}: {to} is at {entry.mac} ({entry.state}), "
                    + (f"which is {there}" if there else "which nobody has")
                )  # fmt: skip
                raise _Stopped(Obstacle(Trouble.STALE, node, route.device, to, fact))
        if not owner:
            fact = f"{node}: sends to {to} on {route.device}, where nobody has that address"
            raise _Stopped(Obstacle(Trouble.NOBODY, node, route.device, to, fact))
        return Hop(node, route.device, to, route, owner)

    def _no_route(self, node: str, dst: IPAddress) -> Obstacle:
        for name in self.lab.node(node).networks:
            link = self.state(node).link(name)
            if link is None or not link.up or not link.carrier:
                fact = f"{node}: {name} is {'down' if link else 'missing'}"
                return Obstacle(Trouble.LINK_DOWN, node, name, dst, fact)
        return Obstacle(Trouble.NO_ROUTE, node, "", dst, f"{node}: no route to {dst}")

    def _owner(self, node: str, device: str, address: IPAddress, wanted: str) -> str:
        found = [
            other
            for other in self.connected(device)
            if other != node and self.answers(other, device, address)
        ]
        return wanted if wanted in found else next(iter(found), "")

    def _check_arrival(self, hop: Hop, src: IPAddress) -> None:
        """What the receiving kernel looks at before anything else (fib_validate_source)."""
        node, device = hop.arrives, hop.device
        if src.version != 4:
            return
        if self.local(node, src) and not self.effective(node, device, "accept_local"):
            fact = f"{node}: takes {src}, the packet's source, for its own address"
            raise _Stopped(Obstacle(Trouble.MARTIAN, node, device, src, fact))
        fact = self.filtered(node, device, src)
        if fact:
            raise _Stopped(Obstacle(Trouble.RP_FILTER, node, device, src, fact))

    def filtered(self, node: str, device: str, src: IPAddress) -> str:
        """Why reverse path filtering drops packets from ``src`` that come in at ``device``.

        Empty: it does not. 1 wants the way back through the same device, 2 any way back.
        """
        mode = self.effective(node, device, "rp_filter")
        back = self.route(node, src)
        if mode == 1 and (back is None or back.device != device):
            leads = f"its way to {src} is through {back.device}" if back else f"no way to {src}"
            return f"{node}: rp_filter=1 counts for {device}, and {leads}"
        if mode == 2 and back is None:
            return f"{node}: rp_filter=2 counts for {device}, and there is no way to {src}"
        return ""
