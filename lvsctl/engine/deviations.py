"""Deviations: where a node differs from the lab as configured.

Only what was inspected is compared: ``inspect`` reads neither every sysctl nor the switches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lvsctl.engine.findings import Deviation
from lvsctl.model.addresses import IPAddress
from lvsctl.model.lab import Lab
from lvsctl.model.service import ForwardingMethod
from lvsctl.model.state import NodeState, RealServerState
from lvsctl.plan import planner
from lvsctl.plan.diff import difference
from lvsctl.resources.ops import (
    AddAddress,
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
    SetLinkUp,
    SetSysctl,
    Stage,
    endpoint,
)


def find_deviations(
    lab: Lab, inspected: Mapping[str, NodeState]
) -> dict[str, tuple[Deviation, ...]]:
    """Return the deviations of each inspected node, by its name."""
    states = {state.netns: state for state in inspected.values()}
    plan = _seen(planner.plan_for(lab), states)
    found = difference(plan, states)
    by_netns: dict[str, list[Deviation]] = {netns: [] for netns in states}
    for op in (op for stage in found.missing for op in stage.ops):
        netns = op.node_netns if isinstance(op, AddLink) else op.netns
        by_netns[netns] += _missing(op, states[netns], lab)
    for op in found.extra:
        by_netns[op.netns] += _extra(op, lab)
    return {name: tuple(by_netns[state.netns]) for name, state in inspected.items()}


def _seen(plan: Plan, states: dict[str, NodeState]) -> Plan:
    """What ``plan`` says about what was looked at."""

    def looked_at(op: Op) -> bool:
        if isinstance(op, AddLink):
            return op.node_netns in states
        if op.netns not in states or isinstance(op, AddNamespace):
            return False
        return not isinstance(op, SetSysctl) or op.key in states[op.netns].sysctls

    stages = (Stage(stage.title, tuple(filter(looked_at, stage.ops))) for stage in plan.stages)
    return Plan(plan.lab, tuple(stages))


def _missing(  # noqa: C901 (a row for each kind)
    op: Op, state: NodeState, lab: Lab
) -> Iterator[Deviation]:
    match op:
        case SetSysctl():
            yield Deviation(f"{op.key} is {state.sysctls[op.key]}, not {op.value}", op.why)
        case AddLink():
            # The switch's end was not looked at, so it counts as missing: the node's end decides.
            yield from _interface(op, state)
        case SetLinkUp() | AddTunnel():
            what = "down" if state.link(op.device) else "missing"
            yield Deviation(f"{op.device} is {what}", op.why)
        case AddGuePort():
            yield Deviation(f"GUE is not taken off at UDP port {op.port}", op.why)
        case AddAddress():
            what = _address(op.address.ip, lab)
            yield Deviation(f"{what} is missing on {op.device}", op.why)
        case AddRoute():
            yield Deviation(f"no route to {op.to or 'anywhere (default)'} via {op.via}", op.why)
        case AddService():
            known = any(service.key == op.service for service in state.services)
            says = "is configured otherwise" if known else "is missing"
            yield Deviation(f"virtual service {op.service} {says}", f"scheduler {op.scheduler}")
        case AddRealServer():
            yield _real_server(op, state)
        case Listen():
            yield from _listening(op, state)
        case Impair():
            yield Deviation(f"{op.device} is not impaired as configured", op.why)


def _real_server(op: AddRealServer, state: NodeState) -> Deviation:
    wanted, why = op.real_server, f"the topology's real server of {op.service}"
    where = f"{wanted.node} ({endpoint(wanted.rip, wanted.port)})"
    for service in state.services:
        for server in service.real_servers:
            if (service.key, server.rip, server.port) == (op.service, wanted.rip, wanted.port):
                pairs = (
                    ("forwarding method", server.forward, op.forward),
                    ("tunnel", _tunnel(server), _tunnel(op)),
                    ("weight", server.weight, wanted.weight),
                    ("upper threshold", server.upper, wanted.upper),
                    ("lower threshold", server.lower, wanted.lower),
                )
                says = [
                    f"{name} {has}, not {should}" for name, has, should in pairs if has != should
                ]
                return Deviation(f"{where} has {', '.join(says)}", why)
    return Deviation(f"{where} is missing in IPVS", why)


def _tunnel(has: RealServerState | AddRealServer) -> str:
    """The encapsulation, with its port; the same whatever it is where nothing is encapsulated."""
    if has.forward is not ForwardingMethod.TUN:
        return "none"
    port = f" to port {has.tunnel_port}" if has.tunnel_port else ""
    return f"{has.encapsulation}{port}"


def _interface(op: AddLink, state: NodeState) -> Iterator[Deviation]:
    link = state.link(op.device)
    if link is None:
        yield Deviation(f"{op.device} is missing", op.why)
    elif not link.up:
        yield Deviation(f"{op.device} is down", op.why)
    elif not link.carrier:
        yield Deviation(f"{op.device} has no carrier: its switch's port is down", op.why)
    elif link.mac != op.mac:
        yield Deviation(f"{op.device} has the MAC address {link.mac}, not {op.mac}", op.why)


def _listening(op: Listen, state: NodeState) -> Iterator[Deviation]:
    """Of the listeners of a lab all count as missing where one is: look at this one."""
    if not any((one.port, one.protocol) == (op.port, op.protocol) for one in state.listeners):
        yield Deviation(f"nothing listens on {op.protocol} port {op.port}", op.why)


def _extra(op: Op, lab: Lab) -> Iterator[Deviation]:
    match op:
        case AddAddress():
            what = _address(op.address.ip, lab)
            wire = what.startswith("VIP") and op.device in {n.name for n in lab.networks}
            yield Deviation(
                f"{what} is on {op.device}, which the topology does not say",
                "arp_ignore=1 does not keep it silent there" if wire else "",
            )
        case AddGuePort():
            yield Deviation(f"GUE is taken off at UDP port {op.port}, not from the topology")
        case AddRoute():
            yield Deviation(
                f"a route to {op.to or 'anywhere (default)'} via {op.via} is there, "
                "which the topology does not say"
            )
        case AddService():
            yield Deviation(f"virtual service {op.service} is there, not from the topology")
        case AddRealServer():
            where = endpoint(op.real_server.rip, op.real_server.port)
            yield Deviation(f"real server {where} of {op.service} is not from the topology")


def _address(address: IPAddress, lab: Lab) -> str:
    vip = any(service.vip == address for service in lab.services)
    return f"VIP {address}" if vip else str(address)
