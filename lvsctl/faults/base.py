"""What a fault is made of: one misconfiguration as data.

The function below a fault looks at what the plan does at one node (its *context*) and yields
the *changes* that the misconfiguration makes. A fault applies where it has something to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_interface
from itertools import product
from typing import TypeVar

from lvsctl.faults.change import Change
from lvsctl.model.addresses import IPAddress, IPInterface
from lvsctl.model.evidence import LARGE
from lvsctl.model.lab import Lab, Network, Node, Role
from lvsctl.model.service import ForwardingMethod, RealServer, VirtualService
from lvsctl.modes.tun import COSTS
from lvsctl.plan.stages import Plan
from lvsctl.resources.address import Address
from lvsctl.resources.base import Resource
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.sysctl import Sysctl

NAT, TUN, DR = ForwardingMethod.NAT, ForwardingMethod.TUN, ForwardingMethod.DR
EVERY_MODE = (NAT, TUN, DR)

NO_ANSWER = ("all.requests-answered", "all.real-servers-reached")
"""Claims that fail if no request is answered."""

UNEVEN = ("all.distribution", "all.counters-agree")
"""Claims that fail if some real servers answer, and others do not although IPVS schedules them."""

ONE_SERVER_SILENT = (*NO_ANSWER, *UNEVEN)
"""Claims that fail if one real server does not answer, although IPVS schedules it."""

JOINED = ("joined.every-port-answered", "joined.client-stays")
"""Claims about a service's further ports and VIPs."""

UNANSWERED = ("dr.reply-direct", "tun.reply-direct", "nat.reply-crosses-director")
"""Claims that fail if a real server receives requests and no reply leaves it."""

TUNNEL_COSTS = tuple(f"tun.costs-{size}-bytes" for size in COSTS)
"""A service makes the one of these for its encapsulation and the IP version of its RIPs."""

DIRECTOR_BYPASSED = (
    "all.real-servers-reached",
    "all.distribution",
    "all.counters-agree",
    "all.connection-table-agrees",
)
"""Claims that fail if requests bypass the director and one real server answers them."""

AnOp = TypeVar("AnOp", bound=Resource)


@dataclass(frozen=True, slots=True)
class FaultContext:
    """One node of a lab, and the lab's plan."""

    lab: Lab
    plan: Plan
    node: Node

    @property
    def netns(self) -> str:
        """The node's namespace."""
        return self.lab.netns(self.node.name)

    def planned(self, kind: type[AnOp]) -> Iterator[AnOp]:
        """The plan's operations of one kind, in the node's namespace."""
        return (op for op in self.plan.resources if isinstance(op, kind) and op.netns == self.netns)

    def setting(self, key: str) -> Sysctl:
        """The plan's setting of a sysctl at the node. Raises LookupError if it sets none."""
        for op in self.planned(Sysctl):
            if op.name == key:
                return op
        raise LookupError(key)

    def put(self, resource: Resource) -> Change:
        """The change that puts a resource in the place of the planned one with its key, if any."""
        planned = (op for op in self.planned(type(resource)) if op.key == resource.key)
        return Change(next(planned, None), resource)

    def vips(self, *, device: str | None = None) -> Iterator[Address]:
        """The VIPs that the node holds, or only those on ``device``."""
        held = {vip for service in self.lab.services for vip in service.vips}
        for op in self.planned(Address):
            if op.address.ip in held and device in (None, op.device):
                yield op

    def first_entries(self, modes: Iterable[ForwardingMethod] = ()) -> Iterator[IpvsRealServer]:
        """The first real server of each virtual service in the director's IPVS table.

        The first of ``modes``, if any are given. Not the director itself, if there is another
        one: it answers by whatever method.
        """
        seen, methods = set(), tuple(modes) or EVERY_MODE
        for op in sorted(self.planned(IpvsRealServer), key=lambda one: one.real_server.local):
            if op.service not in seen and op.real_server.forward in methods:
                seen.add(op.service)
                yield op

    def at(self, name: str) -> FaultContext:
        """The context of another node of the lab."""
        return FaultContext(self.lab, self.plan, self.lab.node(name))

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions of the VIPs of the services that concern the node."""
        vips = (vip for service in self.services(EVERY_MODE) for vip in service.vips)
        return tuple(dict.fromkeys(vip.version for vip in vips))

    @property
    def rip_versions(self) -> tuple[int, ...]:
        """The IP versions of the addresses that requests to the node's services are sent to."""
        servers = (s for service in self.services(EVERY_MODE) for s in service.real_servers)
        own = (s for s in servers if self.node.name in (s.node, *self._directors))
        return tuple(dict.fromkeys(server.rip.version for server in own))

    @property
    def _directors(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.lab.directors)

    def neighbours(
        self, role: Role, version: int | None = None
    ) -> Iterator[tuple[str, Node, IPAddress]]:
        """Other nodes of ``role`` on the node's networks: network, node, its address there.

        Of each IP version of the VIPs, or only of ``version``.
        """
        versions = self.versions if version is None else (version,)
        for network in self.node.networks:
            for other in self.lab.having(role):
                for interface in other.addresses_on(network):
                    if other != self.node and interface.version in versions:
                        yield network, other, interface.ip

    def services(self, modes: Iterable[ForwardingMethod]) -> Iterator[VirtualService]:
        """The virtual services of ``modes`` that concern the node.

        Those that name it concern a real server; all of them concern any other node.
        """
        for service in self.lab.services:
            methods = {
                server.forward
                for server in service.real_servers
                if self.node.role is not Role.REAL_SERVER or server.node == self.node.name
            }
            if methods.intersection(modes):
                yield service

    def servers(self, modes: Iterable[ForwardingMethod]) -> Iterator[RealServer]:
        """The real servers of ``modes`` that concern the node: itself, or all of the services."""
        methods = tuple(modes)
        for service in self.services(methods):
            for server in service.real_servers:
                own = self.node.role is not Role.REAL_SERVER or server.node == self.node.name
                if own and server.forward in methods:
                    yield server

    def joins(self, some: Iterable[Node], others: Iterable[Node]) -> bool:
        """Whether packets from one of ``some`` to one of ``others`` may need the node as router.

        They do where the two share no network, unless another router is the only one beside both.
        """
        theirs = tuple(others)
        for one, other in product(some, theirs):
            here, there = set(one.networks), set(other.networks)
            if one == other or here & there:
                continue
            routers = [
                router.name
                for router in self.lab.having(Role.ROUTER)
                if here & set(router.networks) and there & set(router.networks)
            ]
            if not routers or self.node.name in routers:
                return True
        return False

    def far(self, nodes: Iterable[Node]) -> bool:
        """Whether some of ``nodes`` are on no network of the node."""
        own = set(self.node.networks)
        return any(not own & set(node.networks) for node in nodes)

    @property
    def tunnel_is_tight(self) -> bool:
        """Whether a client's full-sized packet is too large for a path with a tunnel's headers.

        Not where every real server announces smaller segments: the clients send no such packets;
        nor where a whole large request fits into one.
        """
        lab = self.lab
        servers = {s.node for service in lab.services for s in service.by(ForwardingMethod.TUN)}
        if servers and all(self._announces_less(lab.node(name)) for name in servers):
            return False
        clients = [lab.mtu_of(c, n) for c in lab.having(Role.CLIENT) for n in c.networks]
        ends = (*lab.directors, *lab.having(Role.REAL_SERVER))
        smallest = min(lab.mtu_of(node, n) for node in ends for n in node.networks)
        return smallest <= min(max(clients), LARGE)

    def _announces_less(self, server: Node) -> bool:
        """Whether clients learn a smaller segment size of a real server than its link's."""
        lab = self.lab
        if server.mss_clamp or any(route.mss for route in server.routes):
            return True
        clients = lab.having(Role.CLIENT)
        return any(
            router.mss_clamp and self.at(router.name).joins((server,), clients)
            for router in lab.having(Role.ROUTER)
        )

    @property
    def large_requests(self) -> bool:
        """Whether requests longer than a packet are sent through the lab."""
        return any(service.endpoint.protocol.has_connections for service in self.lab.services)


def unanswered_udp(context: FaultContext) -> tuple[str, ...]:
    """Claims that fail where a UDP port is closed: no RST comes from the VIP.

    The real server's ICMP error is from its own address, or none comes.
    """
    udp = any(
        not service.endpoint.protocol.has_connections for service in context.services(EVERY_MODE)
    )
    return UNANSWERED if udp else ()


def unused_address(lab: Lab, network: Network, version: int) -> IPInterface:
    """Return the network's highest address of an IP version that no node and no service has."""
    subnet = next(subnet for subnet in network.subnets if subnet.version == version)
    taken = {a.ip for node in lab.nodes for a in node.addresses_on(network.name)}
    taken |= {vip for service in lab.services for vip in service.vips}
    address = subnet.broadcast_address - 1
    while address in taken:
        address -= 1
    return ip_interface(f"{address}/{subnet.prefixlen}")


ONE_OF_SEVERAL_SPARES = (
    *("all.real-servers-reached", "all.counters-agree", "all.reply-path-counted"),
    *TUNNEL_COSTS,
)
"""Claims that hold while one of several active directors is broken: by the flows of the others."""

ONE_OF_SEVERAL_MAY_BREAK = (
    *ONE_OF_SEVERAL_SPARES,
    *("all.requests-answered", "all.large-requests-answered", "all.nothing-sent-again"),
    *("all.distribution", "all.frames-agree", "tun.reply-direct"),
    *("ecmp.every-director", "ecmp.same-real-server"),
)
"""Claims that may fail then: by its own flows, which are some or all of those that were sent."""

Changes = Callable[[FaultContext], Iterator[Change]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A deliberate misconfiguration.

    ``text`` says what is wrong, ``symptom`` what is captured on the wire.
    ``breaks`` are the claims that must fail, as far as the lab makes them; ``may_break`` may
    fail as well, depending on a race (which ARP reply is accepted first); no others fail.
    ``at`` are the roles of the nodes where it can be injected, the clearest one first.
    """

    id: str
    text: str
    modes: tuple[ForwardingMethod, ...]
    at: tuple[Role, ...]
    changes: Changes
    symptom: str
    breaks: tuple[str, ...]
    may_break: tuple[str, ...] = ()
    breaks_where: Callable[[FaultContext], tuple[str, ...]] | None = None
    """More claims that fail, depending on the topology."""
    spares_where: Callable[[FaultContext], tuple[str, ...]] | None = None
    """Claims of ``breaks`` that do not fail, depending on the topology."""
    cause: str = ""
    """The kind of cause that ``diagnose`` names; empty: the fault's own id."""
    on_switch: bool = False
    """Whether it is the switch of the node's first network that is changed, and named."""

    def named_as(self, context: FaultContext) -> tuple[str, str]:
        """The cause that ``diagnose`` must name first, and its node or network."""
        place = context.node.networks[0] if self.on_switch else context.node.name
        return self.cause or self.id, place

    def changes_at(self, context: FaultContext) -> tuple[Change, ...]:
        """The changes at a node; none if the fault does not apply there."""
        if context.node.role not in self.at or not any(context.services(self.modes)):
            return ()
        try:
            found = dict.fromkeys(self.changes(context))
        except LookupError:  # the plan does not make the setting that the fault would change
            return ()
        return tuple(change for change in found if change.before != change.after)

    def nodes(self, lab: Lab, plan: Plan) -> tuple[str, ...]:
        """Nodes where the fault can be injected, the default first; none if it does not apply."""
        contexts = (FaultContext(lab, plan, node) for role in self.at for node in lab.having(role))
        return tuple(context.node.name for context in contexts if self.changes_at(context))

    def may_fail(self, context: FaultContext) -> tuple[str, ...]:
        """Claims that may fail besides: what a service's other ports show as well as its first."""
        several = ONE_OF_SEVERAL_MAY_BREAK if _at_one_of_several(context) else ()
        return (*self.may_break, *JOINED, *several)

    def predicted(self, context: FaultContext) -> tuple[str, ...]:
        """The claims that must fail while the fault is injected at the node."""
        more = self.breaks_where(context) if self.breaks_where is not None else ()
        spared = self.spares_where(context) if self.spares_where is not None else ()
        if NO_ANSWER[0] in self.breaks and self._spares_some(context):
            more = (*more, *UNEVEN)
        changes = self.changes_at(context)
        if _at_one_of_several(context):
            spared = (*spared, *ONE_OF_SEVERAL_SPARES)
            if any(isinstance(one.before or one.after, _TABLE) for one in changes):
                more = (*more, "ecmp.tables-agree")
        methods = _methods(context, changes)
        others = {str(method) for method in EVERY_MODE} - methods
        broken = dict.fromkeys((*self.breaks, *more))
        return tuple(c for c in broken if c.partition(".")[0] not in others and c not in spared)

    def _spares_some(self, context: FaultContext) -> bool:
        """Whether it does no harm to other real servers of a service, which still answer."""
        return any(
            server.local or server.forward not in self.modes
            for service in context.services(self.modes)
            for server in service.real_servers
            if len(self.modes) < len(EVERY_MODE)
        )


_TABLE = (IpvsService, IpvsRealServer)


def _at_one_of_several(context: FaultContext) -> bool:
    """Whether the node is one of several directors that handle requests at the same time."""
    return context.lab.ecmp and context.node.role is Role.DIRECTOR


def _methods(context: FaultContext, changes: Iterable[Change]) -> set[str]:
    """The forwarding methods of the real servers that changes concern: their claims begin so."""
    changed = [one.before or one.after for one in changes]
    entries = [one.real_server for one in changed if isinstance(one, IpvsRealServer)]
    added = any(one.before is None for one in changes)  # it might be of any method
    if entries and len(entries) == len(changed) and not added:
        return {entry.forward for entry in entries}
    return {server.forward for server in context.servers(EVERY_MODE)}


class FaultTable:
    """The faults of one subject, in the order in which they are shown."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(
        self,
        id: str,  # noqa: A002 (the field's name)
        text: str,
        *,
        modes: tuple[ForwardingMethod, ...],
        at: tuple[Role, ...],
        symptom: str,
        breaks: tuple[str, ...],
        may_break: tuple[str, ...] = (),
        breaks_where: Callable[[FaultContext], tuple[str, ...]] | None = None,
        spares_where: Callable[[FaultContext], tuple[str, ...]] | None = None,
        cause: str = "",
        on_switch: bool = False,
    ) -> Callable[[Changes], Changes]:
        """Decorate the function that yields a fault's changes; see ``Fault``."""

        def decorate(changes: Changes) -> Changes:
            self._faults.append(
                Fault(
                    id=id,
                    text=text,
                    modes=modes,
                    at=at,
                    changes=changes,
                    symptom=symptom,
                    breaks=breaks,
                    may_break=may_break,
                    breaks_where=breaks_where,
                    spares_where=spares_where,
                    cause=cause,
                    on_switch=on_switch,
                )
            )
            return changes

        return decorate

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._faults)
