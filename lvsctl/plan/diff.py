"""What a running lab lacks of its plan, and what it has beyond it. Pure.

Both are operations, so that the same words describe, perform and undo them.
Compared is what the plan speaks of (devices, addresses, routes, settings, the IPVS
table, listeners); beyond the plan, what could change how the lab works: addresses,
routes, virtual services and real servers. Devices added by hand are left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from lvsctl.model.addresses import IPInterface
from lvsctl.model.service import ForwardingMethod, RealServer, Scheduler
from lvsctl.model.state import NodeState, RealServerState, ServiceState
from lvsctl.resources.ops import (
    AddAddress,
    AddBridge,
    AddGuePort,
    AddLink,
    AddNamespace,
    AddRealServer,
    AddRoute,
    AddService,
    AddTunnel,
    Impair,
    Listen,
    Op,
    Plan,
    RunCommand,
    SetLinkUp,
    SetSysctl,
    Stage,
    subject,
)

States = Mapping[str, NodeState]
"""The state of each namespace that exists, by its name."""


@dataclass(frozen=True, slots=True)
class Difference:
    """``missing``: the stages of the plan with only what is not so; ``extra``: to be undone.

    ``edited``: what of ``missing`` takes the place of something that is there.
    """

    missing: tuple[Stage, ...]
    extra: tuple[Op, ...]
    edited: tuple[Op, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra)


def difference(plan: Plan, states: States, ended: Collection[str] = ()) -> Difference:
    """How the kernel's ``states`` differ from ``plan``.

    ``ended`` are the namespaces in which the user's own command should run, and does not.
    """
    lost = {ns for op in plan.ops for ns in _namespaces(op) if ns not in states}
    anew = [op for op in plan.ops if isinstance(op, AddLink) and _is_cut(op, states)]
    missing = []
    for stage in plan.stages:
        ops = tuple(
            op
            for op in stage.ops
            if not _satisfied(op, states, lost)
            or any(_goes_along(op, cable) for cable in anew)
            or (isinstance(op, RunCommand) and op.netns in ended)
        )
        # The responder serves all listeners of the lab from one process: all or none.
        if any(isinstance(op, Listen) for op in ops):
            ops = tuple(op for op in stage.ops if isinstance(op, Listen) or op in ops)
        if ops:
            missing.append(Stage(stage.title, ops))
    # A half cable is in the way of a whole one: its port is taken away first.
    halves = (op for op in anew if op.netns in states and states[op.netns].link(op.port))
    there = {subject(op) for state in states.values() for op in _present(state)}
    edited = (op for stage in missing for op in stage.ops if subject(op) in there)
    return Difference(tuple(missing), (*halves, *_extra(plan, states)), tuple(edited))


def settings_of(plan: Plan) -> tuple[str, ...]:
    """The sysctls that a plan speaks of: what ``states`` must have been asked for."""
    return tuple(dict.fromkeys(op.key for op in plan.ops if isinstance(op, SetSysctl)))


def _namespaces(op: Op) -> tuple[str, ...]:
    return (op.netns, op.node_netns) if isinstance(op, AddLink) else (op.netns,)


def _goes_along(op: Op, cable: AddLink) -> bool:
    """Whether ``op`` rests on ``cable``, so that it must be done again with it.

    Routes are: those by way of the cable went with it, and setting one twice is harmless.
    """
    device = getattr(op, "device", None)
    if op.netns == cable.netns:
        return device == cable.port
    return op.netns == cable.node_netns and (
        device == cable.device
        or isinstance(op, AddRoute)
        or (isinstance(op, SetSysctl) and f".{cable.device}." in op.key)
    )


def _satisfied(op: Op, states: States, lost: set[str]) -> bool:
    if not lost.isdisjoint(_namespaces(op)):
        return False
    return _so(op, states[op.netns], states)


def _so(op: Op, state: NodeState, states: States) -> bool:  # noqa: PLR0911, C901 (a row a kind)
    match op:
        case AddNamespace():
            return True
        case SetSysctl():
            value = state.sysctls.get(op.key)
            return value == op.value or (value is None and op.optional)
        case SetLinkUp() | AddBridge() | AddTunnel():
            link = state.link(op.device)
            return link is not None and link.up
        case AddGuePort():
            return op.port in state.gue_ports
        case AddLink():
            return _linked(op, states)
        case Impair():
            link = state.link(op.device)
            return link is not None and link.impairment == op.impairment
        case AddAddress():
            return op.address in _addresses(state, op.device)
        case AddRoute():
            return any(r.to == op.to and r.via == op.via for r in state.routes)
        case AddService():
            return any(_service(state.netns, s) == op for s in state.services)
        case AddRealServer():
            return _anonymous(op) in set(_real_servers(state))
        case Listen():
            return any(
                listener.port == op.port and listener.protocol is op.protocol
                for listener in state.listeners
            )
    # DisableOffloads and RunCommand: what they did is not in the state of a node.
    return True


def _is_cut(op: AddLink, states: States) -> bool:
    """Whether the cable must be laid anew.

    The end of a cable goes with the other one's namespace: where the node still has its
    end, a switch that is not in ``states`` was not looked at.
    """
    node = states.get(op.node_netns)
    if op.netns not in states and node is not None and node.link(op.device) is not None:
        return False
    return not _whole(op, states)


def _whole(op: AddLink, states: States) -> bool:
    """Whether the cable is there with both its ends, up or not."""
    if op.netns not in states or op.node_netns not in states:
        return False
    port, device = states[op.netns].link(op.port), states[op.node_netns].link(op.device)
    return (
        port is not None and device is not None and (port.master, device.mac) == (op.bridge, op.mac)
    )


def _linked(op: AddLink, states: States) -> bool:
    ends = states[op.netns].link(op.port), states[op.node_netns].link(op.device)
    return _whole(op, states) and all(end is not None and end.up for end in ends)


def _addresses(state: NodeState, device: str) -> tuple[IPInterface, ...]:
    link = state.link(device)
    return link.addresses if link is not None else ()


def _extra(plan: Plan, states: States) -> Iterator[Op]:
    """What is there and neither in the plan nor about to be replaced by something in it."""
    wanted = {subject(op) for op in plan.ops}
    hosts = dict.fromkeys(op.node_netns for op in plan.ops if isinstance(op, AddLink))
    for netns in hosts:
        if netns in states:
            yield from (op for op in _present(states[netns]) if subject(op) not in wanted)


def _present(state: NodeState) -> Iterator[Op]:
    """What a node has, as the operations that would have made it."""
    for link in state.links:
        for address in link.addresses:
            if not (address.ip.is_loopback or address.ip.is_link_local):
                yield AddAddress(netns=state.netns, device=link.name, address=address)
    for port in state.gue_ports:
        yield AddGuePort(netns=state.netns, port=port)
    for route in state.routes:
        if not route.kernel and route.via is not None:
            yield AddRoute(netns=state.netns, to=route.to, via=route.via)
    for service in state.services:
        configured = _service(state.netns, service)
        if configured is not None:
            yield configured
    yield from _real_servers(state)


def _service(netns: str, service: ServiceState) -> AddService | None:
    try:
        scheduler = Scheduler(service.scheduler)
    except ValueError:  # none of the kernel's own: left alone
        return None
    return AddService(
        netns=netns,
        service=service.key,
        scheduler=scheduler,
        persistence=service.persistence,
    )


def _real_servers(state: NodeState) -> Iterator[AddRealServer]:
    for service in state.services:
        for server in service.real_servers:
            if isinstance(server.forward, ForwardingMethod):
                yield AddRealServer(
                    netns=state.netns,
                    service=service.key,
                    forward=server.forward,
                    real_server=_configured(server),
                    encapsulation=server.encapsulation,
                    tunnel_port=server.tunnel_port,
                )


def _anonymous(op: AddRealServer) -> AddRealServer:
    """``op`` as the kernel knows it: by address, not by name."""
    return replace(op, real_server=replace(op.real_server, node=""))


def _configured(server: RealServerState) -> RealServer:
    return RealServer(
        node="",
        rip=server.rip,
        port=server.port,
        weight=server.weight,
        upper=server.upper,
        lower=server.lower,
    )
