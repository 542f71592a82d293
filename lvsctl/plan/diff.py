"""Compare a plan with a running lab: what it lacks, and what it has beyond it. Pure.

Both are resources, so that the same values describe, apply and undo them. Each kind of resource
says whether a state satisfies it and which of its kind a state has (``resources``). What is in a
state and in no plan is undone, or left alone where a program or the host may use it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Interface
from typing import NamedTuple

from lvsctl.model.addresses import IPAddress
from lvsctl.model.state import NodeState
from lvsctl.plan.commanded import commanded, is_owned, owned_by_keepalived
from lvsctl.plan.stages import Left, Plan, Stage
from lvsctl.resources.address import Address
from lvsctl.resources.base import Command, Resource, States
from lvsctl.resources.bridge import Bridge
from lvsctl.resources.device import Device
from lvsctl.resources.foreign import NextHopObject, TcpMetrics
from lvsctl.resources.ipvs_config import ConnectionTimeouts, SyncDaemon
from lvsctl.resources.ipvs_real_server import IpvsRealServer
from lvsctl.resources.ipvs_service import IpvsService
from lvsctl.resources.keepalived import Keepalived
from lvsctl.resources.kinds import KINDS
from lvsctl.resources.link_setting import LinkSetting
from lvsctl.resources.neighbour import SET, LearntNeighbour
from lvsctl.resources.netem import Netem
from lvsctl.resources.packet_filter import PacketFilter
from lvsctl.resources.policy_rule import PolicyRule
from lvsctl.resources.responder_port import ResponderPort
from lvsctl.resources.static_route import StaticRoute
from lvsctl.resources.sysctl import Sysctl
from lvsctl.resources.tunnel import Tunnel
from lvsctl.resources.user_command import UserCommand
from lvsctl.resources.veth_link import VethLink

LOOPBACK = IPv4Interface("127.0.0.1/8")
_EVERY = "every namespace has it"


class Difference(NamedTuple):
    """``missing``: the stages of the plan with only what is not so; ``extra``: to be undone.

    ``edited``: those of ``missing`` that take the place of something that exists. ``left``:
    what is not from the topology and is left alone.
    """

    missing: tuple[Stage, ...]
    extra: tuple[Resource, ...]
    edited: tuple[Resource, ...] = ()
    left: tuple[Left, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra)


def diff(plan: Plan, states: States, ended: Collection[str] = ()) -> Difference:
    """Return how the kernel's ``states`` differ from ``plan``.

    ``ended`` are the namespaces in which the user's own command should run, and does not.
    """
    again = [one for one in plan.resources if isinstance(one, VethLink) and _is_cut(one, states)]
    others = [one for one in plan.resources if isinstance(one, Tunnel) and _is_other(one, states)]
    taken: dict[Resource, Left] = dict(_taken(plan, states))
    taken.update(_removed_by_command(plan, states))
    in_the_way = tuple(
        dict.fromkeys(
            each
            for one in plan.resources
            if not one.satisfied_by(states)
            for each in one.in_the_way(states)
        )
    )
    readdressed = {one.netns for one in in_the_way if isinstance(one, Address)}
    missing = []
    for stage in _stages(plan, states):
        resources = tuple(
            one
            for one in stage.resources
            if not one.satisfied_by(states)
            or any(_rests_on(one, link) for link in again)
            or any(not one.rests_on().isdisjoint(tunnel.provides()) for tunnel in others)
            or (isinstance(one, StaticRoute) and one.netns in readdressed)
            or (isinstance(one, UserCommand) and one.netns in ended)
        )
        resources = tuple(one for one in resources if one not in taken)
        # The responder serves all ports of the lab from one process: all or none.
        if any(isinstance(one, ResponderPort) for one in resources):
            resources = tuple(
                one
                for one in stage.resources
                if one not in taken and (isinstance(one, ResponderPort) or one in resources)
            )
        if resources:
            fitted = (one.fitted(states) for one in _with_free_numbers(resources, states))
            missing.append(Stage(stage.title, tuple(fitted)))
    # Half a veth pair is in the way of a whole one, and so is another tunnel.
    halves = _halves(again, states)
    extra, left = _extra(plan, states, again)
    existing = {one.key for state in states.values() for one in _present(state)}
    existing -= {one.key for one in in_the_way}
    edited = (
        one
        for stage in missing
        for one in stage.resources
        if one.key in existing or (isinstance(one, VethLink) and one.exists(states))
    )
    return Difference(
        tuple(missing),
        tuple(dict.fromkeys((*halves, *_devices(others), *in_the_way, *extra))),
        tuple(edited),
        (*left, *taken.values()),
    )


def settings_of(plan: Plan) -> tuple[str, ...]:
    """Return the sysctls of a plan: those that ``states`` must have for ``diff``."""
    return tuple(dict.fromkeys(one.name for one in plan.resources if isinstance(one, Sysctl)))


def obsolete(old: Iterable[Resource], new: Iterable[Resource]) -> tuple[Resource, ...]:
    """Return those of ``old`` that must be undone for ``new`` to be all there is."""
    wanted = {one.key for one in new}
    return tuple(one for one in dict.fromkeys(old) if one.key not in wanted)


def independent(resources: Iterable[Resource]) -> list[Resource]:
    """Return those of ``resources`` that do not go away together with another one of them."""
    every = list(dict.fromkeys(resources))
    going = frozenset[object]().union(*(one.provides() for one in every))
    return [one for one in every if one.rests_on().isdisjoint(going)]


def _stages(plan: Plan, states: States) -> Iterator[Stage]:
    """Yield the plan's stages, and what every namespace has without a plan."""
    yield from plan.stages
    usual: list[Resource] = []
    for netns in _nodes(plan):
        if netns in states and states[netns].whole:
            usual.append(Address(netns=netns, device="lo", address=LOOPBACK, why=_EVERY))
            usual += PolicyRule.usual(states[netns])
    if usual:
        yield Stage("what every namespace has", tuple(usual))


def _nodes(plan: Plan) -> tuple[str, ...]:
    """Return the namespaces of the plan's nodes, without its switches."""
    return tuple(
        dict.fromkeys(one.node_netns for one in plan.resources if isinstance(one, VethLink))
    )


# ── what must be made again ──────────────────────────────────────────────────────────────────


def _rests_on(resource: Resource, link: VethLink) -> bool:
    """Return whether a resource must be applied again together with ``link``.

    Routes are: those through the link went with it, and setting one twice is harmless.
    """
    if isinstance(resource, StaticRoute) and resource.netns == link.node_netns:
        return True
    return not resource.rests_on().isdisjoint(link.provides())


def _is_cut(link: VethLink, states: States) -> bool:
    """Return whether the link must be created again.

    One end goes with the other one's namespace: where the node still has its end, a switch that
    is not in ``states`` was not looked at.
    """
    node = states.get(link.node_netns)
    if link.netns not in states and node is not None and node.link(link.device) is not None:
        return False
    return not link.exists(states)


def _with_free_numbers(resources: Iterable[Resource], states: States) -> Iterator[Resource]:
    """Yield ``resources``, the links among them with numbers that no other port has.

    A plan counts the ports of a switch. Those that stay keep the numbers of an earlier plan.
    """
    given: dict[str, set[int]] = {}
    for one in resources:
        if not isinstance(one, VethLink):
            yield one
            continue
        state = states.get(one.netns)
        links = () if state is None else state.links
        taken = given.setdefault(one.netns, set())
        others = taken.union(link.index for link in links if link.name != one.port)
        number = one.port_index if one.port_index not in others else max(others) + 1
        taken.add(number)
        yield one if number == one.port_index else replace(one, port_index=number)


def _halves(cut: Iterable[VethLink], states: States) -> Iterator[Resource]:
    """Yield what is left of the links that are made again, and whatever has their names."""
    for one in cut:
        if one.netns in states and states[one.netns].link(one.port):
            yield one
        for netns, device in ((one.node_netns, one.device), (one.netns, one.port)):
            link = states[netns].link(device) if netns in states else None
            if link is not None and (netns, device) != (one.netns, one.port):
                yield Device(netns=netns, device=device, kind=link.kind)


def _devices(tunnels: Iterable[Tunnel]) -> Iterator[Resource]:
    """Yield the devices of tunnels, to be deleted; undoing a tunnel may only set it down."""
    for one in tunnels:
        yield Device(netns=one.netns, device=one.device, kind=str(one.kind))


def _is_other(tunnel: Tunnel, states: States) -> bool:
    state = states.get(tunnel.netns)
    return state is not None and tunnel.is_other(state)


def _taken(plan: Plan, states: States) -> Iterator[tuple[Resource, Left]]:
    """Yield the responder's ports that another process has."""
    for one in plan.resources:
        if isinstance(one, ResponderPort) and (holder := one.taken_by(states)) is not None:
            what = f"{holder.process or 'another process'} ({holder.pid})"
            yield (
                one,
                Left(
                    one.netns,
                    f"{what} has {one.protocol} port {one.port}, on which {one.node} answers",
                    str(Command(("kill", str(holder.pid)))),
                ),
            )


def _removed_by_command(plan: Plan, states: States) -> Iterator[tuple[Resource, Left]]:
    """Yield what a director's own command may have taken out of the table, or not put into it."""
    directed, owned = commanded(plan), owned_by_keepalived(plan)
    vips = _vips(plan)
    for one in plan.resources:
        mine = isinstance(one, IpvsRealServer) or is_owned(one, owned)
        if isinstance(one, Address) and one.netns in owned and (one.netns, one.address.ip) in vips:
            # keepalived removes VIPs when it starts, and adds them again as VRRP's master.
            if one.netns in states and not one.satisfied_by(states):
                yield one, Left(one.netns, f"VIP {one.address.ip} is missing: {_BY_VRRP}", "")
            continue
        if not mine or one.netns not in directed or one.netns not in states:
            continue
        if not one.satisfied_by(states):
            named = one.real_server.node if isinstance(one, IpvsRealServer) else _service_of(one)
            because = _BY_KEEPALIVED if one.netns in owned else _BY_COMMAND
            text = f"{named} is not in the table as planned: {because}"
            command = "" if one.netns in owned else str(one.commands()[0])
            yield one, Left(one.netns, text, command)


def _service_of(one: Resource) -> str:
    return f"virtual service {one.service}" if isinstance(one, IpvsService) else str(one.key)


def _vips(plan: Plan) -> frozenset[tuple[str, IPAddress]]:
    """Return the VIPs of each director's virtual services, with its namespace."""
    return frozenset(
        (one.netns, vip)
        for one in plan.resources
        if isinstance(one, IpvsService)
        for vip in {endpoint.vip for endpoint in one.service.endpoints}
    )


_BY_VRRP = "keepalived, by VRRP, decides which director has it"
_BY_KEEPALIVED = "keepalived decides what is in it, by its file and its health checks"


_BY_COMMAND = "the director's own command may have decided so"
_OF_COMMANDS = (
    *(Address, ConnectionTimeouts, Device, IpvsRealServer, IpvsService, PacketFilter),
    *(NextHopObject, PolicyRule, StaticRoute, SyncDaemon),
)
"""What programs such as keepalived add to a director."""


# ── what no plan contains ────────────────────────────────────────────────────────────────────


def _extra(
    plan: Plan, states: States, again: Collection[VethLink]
) -> tuple[tuple[Resource, ...], tuple[Left, ...]]:
    """Return what exists and is neither in the plan nor about to be replaced by it.

    The first part is to be undone, the second left alone, together with what rests on it.
    """
    wanted = {key for one in plan.resources for key in one.places(states)}
    provided = frozenset[object]().union(*(one.provides() for one in plan.resources))
    going = {(one.node_netns, one.device_index) for one in again}
    going |= {(one.netns, one.port_index) for one in again}
    renamed = frozenset[object]()
    found: list[Resource] = []
    for state in _looked_at(plan, states):
        for one in _present(state):
            if one.key in wanted or (one.provides() and one.provides() <= provided):
                continue
            if isinstance(one, Device) and (one.netns, one.index) in going:
                renamed |= one.provides()  # it goes with its other end
            else:
                found.append(one)
    found = [one for one in found if one.rests_on().isdisjoint(renamed)]
    found += _wrong_neighbours(plan, states)
    found += _taken_macs(plan, states)
    directed = commanded(plan)
    vips = _vips(plan)
    # keepalived adds a VIP with the prefix length of its file: it is the same VIP.
    found = [
        one
        for one in found
        if one.netns not in directed
        or not (isinstance(one, Address) and (one.netns, one.address.ip) in vips)
    ]

    found = [one for one in found if not (_is_of_master(one, plan) or _is_of_slow_links(one, plan))]

    def because(one: Resource) -> str:
        own = one.netns in directed and isinstance(one, _OF_COMMANDS)
        return _BY_COMMAND if own else one.left_because(states)

    kept = [one for one in found if because(one)]
    stays = frozenset[object]().union(*(one.provides() for one in kept))
    left = tuple(
        Left(
            one.netns,
            f"{one.commands()[0].comment or one.commands()[0]}: {because(one)}",
            str(one.undo_commands()[0]),
        )
        for one in kept
    )
    extra = (one for one in found if one not in kept and one.rests_on().isdisjoint(stays))
    return tuple(extra), left


def _is_of_slow_links(one: Resource, plan: Plan) -> bool:
    """Whether TCP has learnt a round-trip time that the lab's own links explain."""
    if not isinstance(one, TcpMetrics) or one.found.fastopen:
        return False
    links = [each.impairment for each in plan.resources if isinstance(each, Netem)]
    delays = sum(each.delay + each.jitter for each in links)
    return any(each.rate for each in links) or 2 * delays >= one.found.rtt


def _is_of_master(one: Resource, plan: Plan) -> bool:
    """Whether keepalived has made it: a master's address, or a synchronization daemon."""
    for program in plan.resources:
        if isinstance(program, Keepalived) and program.netns == one.netns:
            if isinstance(one, SyncDaemon):
                return program.sync
            return isinstance(one, Address) and one.address.ip in program.floating
    return False


def _looked_at(plan: Plan, states: States) -> Iterator[NodeState]:
    """Yield the states of nodes, and of switches where everything was read."""
    switches = (one.netns for one in plan.resources if isinstance(one, Bridge))
    for netns in dict.fromkeys((*_nodes(plan), *switches)):
        state = states.get(netns)
        if state is not None and (state.whole or netns in _nodes(plan)):
            yield state


def _present(state: NodeState) -> Iterator[Resource]:
    """Yield what a node has, as the resources that would have made it."""
    for kind in KINDS:
        if state.whole or kind.PLANNED:
            yield from kind.from_state(state)


def _wrong_neighbours(plan: Plan, states: States) -> Iterator[Resource]:
    """Yield the learned entries with another MAC address than the topology's node has."""
    right = _owners(plan)
    for netns in _nodes(plan):
        for one in states[netns].neighbours if netns in states else ():
            mac = right.get((one.device, one.address))
            if mac is not None and one.mac and one.mac != mac and one.state not in SET:
                yield LearntNeighbour(
                    netns=netns, device=one.device, address=one.address, mac=one.mac, right=mac
                )


def _taken_macs(plan: Plan, states: States) -> Iterator[Resource]:
    """Yield the bridges and ports with a node's MAC address: they keep its frames.

    Which address they had is not known; another one of the same node does as well.
    """
    macs = {one.mac for one in plan.resources if isinstance(one, VethLink)}
    for netns in dict.fromkeys(one.netns for one in plan.resources if isinstance(one, Bridge)):
        for link in states[netns].links if netns in states else ():
            if link.mac in macs:
                other = f"06{link.mac[2:]}"  # ours begin with 02, which is local too
                yield LinkSetting(
                    netns=netns, device=link.name, name="address", value=link.mac, usual=other
                )


def _owners(plan: Plan) -> Mapping[tuple[str, IPAddress], str]:
    """Return who answers for an address on a network: the node that has it there.

    A VIP is on a real server's loopback: only the director has it on the network.
    """
    macs = {
        (one.node_netns, one.device): one.mac for one in plan.resources if isinstance(one, VethLink)
    }
    found: dict[tuple[str, IPAddress], set[str]] = {}
    for one in plan.resources:
        if isinstance(one, Address) and (mac := macs.get((one.netns, one.device))):
            found.setdefault((one.device, one.address.ip), set()).add(mac)
    return {place: next(iter(several)) for place, several in found.items() if len(several) == 1}
