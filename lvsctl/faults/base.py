"""What a fault is to the rest of lvsctl: one misconfiguration, described as data.

A fault's file reads like the definition of the mistake. It looks at what the plan does
for one node (the *scene*) and yields what the mistake makes of it (*changes*). Where it
finds nothing to change, it does not apply: so nothing else says where it can be injected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from lvsctl.faults.change import Change
from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab, Node, Role
from lvsctl.model.service import ForwardingMethod, VirtualService
from lvsctl.resources.ops import AddAddress, AddRealServer, Op, Plan, SetSysctl

NAT, TUN, DR = ForwardingMethod.NAT, ForwardingMethod.TUN, ForwardingMethod.DR
EVERY_MODE = (NAT, TUN, DR)

NOBODY_ANSWERS = ("all.requests-answered", "all.real-servers-reached")
"""What fails where no request is answered at all."""

ONE_SILENT = (*NOBODY_ANSWERS, "all.distribution", "all.counters-agree")
"""What fails where one real server does not answer, though IPVS gives it its share."""

TUNNEL_COSTS = ("tun.costs-20-bytes", "tun.costs-24-bytes", "tun.costs-32-bytes")
"""Of these a service makes the one about its encapsulation."""

PAST_DIRECTOR = (
    "all.real-servers-reached",
    "all.distribution",
    "all.counters-agree",
    "all.connection-table-agrees",
)
"""What fails where requests reach one real server, and are answered, past the director."""

AnOp = TypeVar("AnOp", bound=Op)


@dataclass(frozen=True, slots=True)
class Scene:
    """One node of a lab, and what the lab's plan does there."""

    lab: Lab
    plan: Plan
    node: Node

    @property
    def netns(self) -> str:
        """The node's namespace."""
        return self.lab.netns(self.node.name)

    def planned(self, kind: type[AnOp]) -> Iterator[AnOp]:
        """The plan's operations of one kind, in the node's namespace."""
        return (op for op in self.plan.ops if isinstance(op, kind) and op.netns == self.netns)

    def setting(self, key: str) -> SetSysctl:
        """What the plan sets a sysctl to at the node. Raises LookupError: it leaves it alone."""
        for op in self.planned(SetSysctl):
            if op.key == key:
                return op
        raise LookupError(key)

    def vips(self, *, device: str | None = None) -> Iterator[AddAddress]:
        """The VIPs that the node holds, perhaps only those on one device."""
        held = {service.vip for service in self.lab.services}
        for op in self.planned(AddAddress):
            if op.address.ip in held and device in (None, op.device):
                yield op

    def first_entries(self) -> Iterator[AddRealServer]:
        """The first real server of each virtual service in the director's IPVS table."""
        seen = set()
        for op in self.planned(AddRealServer):
            if op.service not in seen:
                seen.add(op.service)
                yield op

    def at(self, name: str) -> Scene:
        """The same lab, seen from another node."""
        return Scene(self.lab, self.plan, self.lab.node(name))

    def neighbours(self, role: Role) -> Iterator[tuple[str, Node, IPAddress]]:
        """Other nodes of a role on the node's networks: network, node, its IPv4 address there."""
        for network in self.node.networks:
            for other in self.lab.having(role):
                for interface in other.addresses_on(network):
                    if other != self.node and interface.version == 4:
                        yield network, other, interface.ip

    def services(self, modes: Iterable[ForwardingMethod]) -> Iterator[VirtualService]:
        """The virtual services by one of ``modes`` that the node has to do with.

        A real server has to do with those that name it, every other node with all.
        """
        for service in self.lab.services:
            mine = any(server.node == self.node.name for server in service.real_servers)
            if service.forward in modes and (mine or self.node.role is not Role.REAL_SERVER):
                yield service


Changes = Callable[[Scene], Iterator[Change]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A deliberate misconfiguration.

    ``says`` is what it is in the words of LVS, ``symptom`` what shows on the wire.
    ``breaks`` are the claims that must fail, as far as the lab makes them, and no others
    do; ``may_break`` those that depend on who comes first (which ARP answer is believed).
    ``at`` are the roles of the nodes where it is injected, the most telling one first.
    """

    id: str
    says: str
    modes: tuple[ForwardingMethod, ...]
    at: tuple[Role, ...]
    changes: Changes
    symptom: str
    breaks: tuple[str, ...]
    may_break: tuple[str, ...] = ()
    breaks_where: Callable[[Scene], tuple[str, ...]] | None = None
    """Further claims, where what breaks depends on the topology."""

    def changes_at(self, scene: Scene) -> tuple[Change, ...]:
        """What the fault changes at a node; nothing: it does not apply there."""
        if scene.node.role not in self.at or not any(scene.services(self.modes)):
            return ()
        try:
            return tuple(dict.fromkeys(self.changes(scene)))
        except LookupError:  # the plan does not set what the fault would set otherwise
            return ()

    def nodes(self, lab: Lab, plan: Plan) -> tuple[str, ...]:
        """Where the fault can be injected, in the topology's order; none: it does not apply."""
        scenes = (Scene(lab, plan, node) for role in self.at for node in lab.having(role))
        return tuple(scene.node.name for scene in scenes if self.changes_at(scene))

    def predicted(self, scene: Scene) -> tuple[str, ...]:
        """The claims that fail while the fault is injected there."""
        more = self.breaks_where(scene) if self.breaks_where is not None else ()
        return (*self.breaks, *more)
